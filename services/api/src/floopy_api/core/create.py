"""Creating a batch: what the request must say, which account it runs on, and the document it becomes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from floopy_api.core.authentication import Caller
from floopy_api.core.rules import (
    kind_of,
    lifetime,
    missing,
    required_string,
    shortened,
    too_long,
    wrong_type,
    wrong_value,
)
from floopy_api.errors import BadRequest
from floopy_api.ports import Document
from floopy_common.domain.batch import BatchStatus
from floopy_common.domain.plans import Plan
from floopy_common.openai.endpoints import (
    COMPLETION_WINDOWS,
    DEFAULT_PROVIDER,
    SUPPORTED_ENDPOINTS,
    all_endpoints,
)

PROVIDER_HEADER = "floopy-provider"
SESSION_HEADER = "floopy-session-id"

_ID_CHARS = 256
"""Longer than any id of ours; an unknown file fails the batch, not the call."""
METADATA_PAIRS = 16
METADATA_KEY_CHARS = 64
METADATA_VALUE_CHARS = 512


@dataclass(frozen=True)
class CreateBatch:
    """A request to create a batch that follows every rule."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None
    output_expires_after: dict[str, Any] | None


@dataclass(frozen=True)
class CreateOptions:
    """What the headers add; `retry_count` is the SDK's count of its own repeats."""

    headers: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    retry_count: int = 0
    elapsed: float = 0.0
    """Seconds since the request's head came in."""


def read_create(body: object) -> CreateBatch:
    """The request; BadRequest for the first rule it breaks. Fields we do not know are ignored."""
    if not isinstance(body, dict):
        raise BadRequest(f"Invalid type for the request body: expected an object, but got {kind_of(body)}.")
    input_file_id = required_string(body, "input_file_id", _ID_CHARS)
    return CreateBatch(
        input_file_id=input_file_id,
        endpoint=_endpoint(body),
        completion_window=_completion_window(body),
        metadata=_metadata(body.get("metadata")),
        output_expires_after=_output_expiry(body.get("output_expires_after")),
    )


def fingerprint(body: object, headers: Mapping[str, str]) -> str:
    """Equal for requests that ask the same of the same provider, however the body is spaced and ordered."""
    asked = [body, headers.get(PROVIDER_HEADER)]
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()


def _endpoint(body: dict[str, Any]) -> str:
    endpoint = body.get("endpoint")
    if endpoint is None:
        raise missing("endpoint")
    supported = all_endpoints()
    if endpoint not in supported:
        choices = ", ".join(f"'{choice}'" for choice in supported)
        message = f"Invalid endpoint: '{shortened(str(endpoint))}'. Supported values are: {choices}."
        raise BadRequest(message, param="endpoint", code="invalid_value")
    return str(endpoint)


def _completion_window(body: dict[str, Any]) -> str:
    window = body.get("completion_window")
    if window is None:
        raise missing("completion_window")
    if window not in COMPLETION_WINDOWS:
        raise wrong_value("completion_window", window, COMPLETION_WINDOWS)
    return str(window)


def _metadata(metadata: object) -> dict[str, str] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise wrong_type("metadata", "an object", metadata)
    if len(metadata) > METADATA_PAIRS:
        message = (
            f"Invalid 'metadata': too many properties. Expected an object with at most {METADATA_PAIRS} "
            f"properties, but got an object with {len(metadata)} properties instead."
        )
        raise BadRequest(message, param="metadata", code="object_above_max_properties")
    for key, value in metadata.items():
        _check_pair(key, value)
    return metadata


def _check_pair(key: str, value: object) -> None:
    if len(key) > METADATA_KEY_CHARS:
        raise too_long("metadata", METADATA_KEY_CHARS, len(key))
    if "\0" in key:
        raise BadRequest("Invalid 'metadata': keys have no NUL.", param="metadata", code="invalid_value")
    if not isinstance(value, str):
        raise wrong_type(f"metadata.{key}", "a string", value)
    if len(value) > METADATA_VALUE_CHARS:
        raise too_long(f"metadata.{key}", METADATA_VALUE_CHARS, len(value))


def _output_expiry(expiry: object) -> dict[str, Any] | None:
    if expiry is None:
        return None
    return {"anchor": "created_at", "seconds": lifetime(expiry, "output_expires_after")}


def choose_account(accounts: list[Document], wanted: str | None) -> Document:
    """The account a batch runs on: the one the header names by provider or id, else the only one there is,
    else the only one at the default provider.
    """
    if not accounts:
        raise BadRequest(
            "This organisation has no provider account, so no batch can run. Ask your operator to add one.",
            code="no_provider_account",
        )
    fitting = [account for account in accounts if wanted in {None, account["provider"], account["_id"]}]
    if wanted is None and len(fitting) > 1:
        default = [account for account in accounts if account["provider"] == DEFAULT_PROVIDER]
        fitting = default if len(default) == 1 else fitting
    if len(fitting) == 1:
        return fitting[0]
    choices = _choices(fitting or accounts)
    if wanted is None:
        message = f"Say which provider the batch is for in the header '{PROVIDER_HEADER}': {choices}."
    elif fitting:
        message = f"There are several accounts for '{wanted}'; name one in '{PROVIDER_HEADER}': {choices}."
    else:
        message = f"There is no account for '{shortened(wanted)}'. '{PROVIDER_HEADER}' may be: {choices}."
    raise BadRequest(message, param=PROVIDER_HEADER, code="invalid_value")


def _choices(accounts: list[Document]) -> str:
    """What the header may say: the provider where that is enough, else the account's id."""
    providers = [account["provider"] for account in accounts]
    return ", ".join(
        f"'{account['provider']}'"
        if providers.count(account["provider"]) == 1
        else f"'{account['_id']}' ({account['provider']})"
        for account in accounts
    )


def check_supported(provider: str, endpoint: str) -> None:
    """BadRequest unless batches on this endpoint run on this provider today."""
    supported = SUPPORTED_ENDPOINTS[provider]
    if endpoint in supported:
        return
    choices = ", ".join(f"'{choice}'" for choice in supported)
    message = f"Invalid endpoint for provider '{provider}': '{endpoint}'. Supported values are: {choices}."
    raise BadRequest(message, param="endpoint", code="invalid_value")


@dataclass(frozen=True)
class Beginning:
    """Everything a new batch's document is made of, looked up and decided."""

    batch_id: str
    caller: Caller
    request: CreateBatch
    options: CreateOptions
    request_hash: str
    org: Document
    plan: Plan
    account: Document
    input: Document | None
    created_at: datetime
    window: float


def batch_document(new: Beginning) -> Document:
    """The batch as it begins, without its outbox; collections and contracts name every field."""
    key = new.options.idempotency_key
    return {
        "_id": new.batch_id,
        "org_id": new.caller.org_id,
        "api_key_id": new.caller.key_id,
        "version": 1,
        "status": BatchStatus.VALIDATING.value,
        "created_at": new.created_at,
        "expires_at": new.created_at + timedelta(seconds=new.window),
        **dict.fromkeys(_STAMPS),
        "endpoint": new.request.endpoint,
        "completion_window": new.request.completion_window,
        "metadata": new.request.metadata,
        "output_expires_after": new.request.output_expires_after,
        "provider": new.account["provider"],
        "account_id": new.account["_id"],
        "input_file_id": new.request.input_file_id,
        "input": new.input,
        "context": _context(new),
        "plan": None,
        "errors": None,
        "counts": {"total": 0, "completed": 0, "failed": 0},
        "summary": {"shards": {}, "queue": None, "counts": {"completed": 0, "failed": 0}},
        "usage": None,
        "output_file_id": None,
        "error_file_id": None,
        "ending": None,
        "ending_at": None,
        "audit": dict(_UNAUDITED),
        **({} if key is None else {"idempotency_key": key}),
        "request_hash": new.request_hash,
        "retry_count": new.options.retry_count,
        "lease": None,
        "next_look_at": new.created_at,
    }


_STAMPS = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)
_UNAUDITED: Document = {
    "stage": "idle",
    "next_at": None,
    "answered": 0,
    "logged": 0,
    "metered": 0,
    "scored": 0,
    "parked": 0,
    "balanced": False,
}


def _context(new: Beginning) -> Document:
    """What every later step may need to know of who asked; it never changes."""
    return {
        "plan": new.plan.name,
        "feedback": new.plan.feedback,
        "monthly_line_cap": new.plan.monthly_line_cap,
        "retention_days": new.plan.retention_days,
        "content_policy": new.org["content_policy"],
        "sample_rate": new.org["sample_rate"],
        "session_id": new.options.headers.get(SESSION_HEADER),
        "headers": dict(new.options.headers),
    }
