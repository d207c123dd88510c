"""Identities: how every id of the product is made and, where it is derived, from what."""

import hashlib
import secrets

_TOKEN_BYTES = 16
"""128 bits: an id must not be guessable, because knowing one must reveal nothing."""


def new_batch_id() -> str:
    return f"batch_{secrets.token_hex(_TOKEN_BYTES)}"


def new_file_id() -> str:
    return f"file-{secrets.token_hex(12)}"


def new_upload_id() -> str:
    return f"upload_{secrets.token_hex(_TOKEN_BYTES)}"


def new_part_id() -> str:
    return f"part_{secrets.token_hex(_TOKEN_BYTES)}"


def new_blob_id() -> str:
    return f"blob_{secrets.token_hex(12)}"


def new_org_id() -> str:
    return f"org_{secrets.token_hex(8)}"


def new_key_id() -> str:
    return f"key_{secrets.token_hex(8)}"


def new_account_id() -> str:
    return f"acct_{secrets.token_hex(8)}"


def new_plan_id() -> str:
    return f"plan_{secrets.token_hex(10)}"


def new_attempt_id() -> str:
    return f"att_{secrets.token_hex(10)}"


def new_nonce() -> str:
    """Ten lowercase hex digits: short enough for `{nonce}-{line}` to be legal at every provider."""
    return secrets.token_hex(5)


def new_lease_token() -> str:
    return secrets.token_hex(12)


def new_request_id() -> str:
    return f"req_{secrets.token_hex(16)}"


def line_id(batch_id: str, line_no: int) -> str:
    """The key of a line everywhere: zero-padded, so that `_id` order is line order."""
    return f"{batch_id}:{line_no:09d}"


def segment_id(plan_id: str, no: int) -> str:
    return f"{plan_id}:{no:05d}"


def shard_id(plan_id: str, no: int) -> str:
    return f"{plan_id}:{no:05d}"


def retry_shard_id(parent_id: str) -> str:
    """A shard has at most one retry child, so its id follows from the parent's."""
    return f"{parent_id}.r"


def split_shard_id(shard_id: str, number: int) -> str:
    """The other half of a shard's so many-th split."""
    return f"{shard_id}.s{number}"


def receipt_id(batch_id: str, segment_no: int, sink: str) -> str:
    return f"{batch_id}:{segment_no:05d}:{sink}"


def rollup_id(batch_id: str, segment_no: int) -> str:
    return f"{batch_id}:{segment_no:05d}"


def output_file_id(batch_id: str, kind: str) -> str:
    """Id of a batch's `output` or `error` file: derived, so that finalising twice makes one file."""
    digest = hashlib.blake2b(f"{batch_id}:{kind}".encode(), digest_size=12)
    return f"file-{digest.hexdigest()}"


def batch_request_id(line: str) -> str:
    """Public id of an output line (`batch_req_...`), derived from the line id."""
    return f"batch_req_{hashlib.blake2b(line.encode(), digest_size=16).hexdigest()}"
