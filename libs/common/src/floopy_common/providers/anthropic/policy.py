"""What an operator decided about what Anthropic cannot take, and all else a translation depends on."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from floopy_common.providers.anthropic import refusal
from floopy_common.providers.anthropic.capabilities import Capabilities, Model, Models, ModelTable
from floopy_common.providers.anthropic.refusal import LineRefused
from floopy_common.settings import AnthropicSettings

WITHOUT_SAMPLING = "2026-10-21"
"""From this API version on, no model takes temperature or top_p."""


@dataclass(frozen=True)
class StoredFile:
    """A file of ours that a message refers to.

    `limit`: the bytes that the files of one request may have, where they have more; `content` is empty then.
    """

    content: bytes
    filename: str
    media_type: str | None = None
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Policy:
    """`api_version` is the one that is sent: it decides which parameters exist."""

    unsupported: Literal["reject", "drop"] = "reject"
    forced_tool_choice: Literal["reject", "auto"] = "reject"
    auto_cache: bool = False
    api_version: str = "2023-06-01"

    def sampling(self, capabilities: Capabilities) -> bool:
        """Whether temperature and top_p may be anything but 1."""
        return capabilities.sampling and self.api_version < WITHOUT_SAMPLING


class Frame(NamedTuple):
    """A request without its prompt: JSON before and behind it, and what the policy left out."""

    head: bytes
    tail: bytes
    notes: tuple[str, ...]


FrameKey = tuple[str, int | None, int | None, str | None, str | None]
"""Model, both limits, temperature and top_p as the line has them."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """All that a line's translation depends on besides the line.

    `files` holds what `file_ids_of` named and the organisation owns; `salt` is the organisation's own;
    `shared_prefixes` the keys (caching.prefix_key) that several lines of the batch have in common.
    `frames` only saves making them again for each line.
    """

    models: Models = field(default_factory=ModelTable)
    policy: Policy = field(default_factory=Policy)
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    salt: bytes = b""
    shared_prefixes: Container[bytes] = ()
    frames: dict[FrameKey, Frame] = field(default_factory=dict, compare=False, repr=False)

    def model(self, name: str) -> Model:
        """What a line's model means. Raises LineRefused for one that cannot be batched."""
        model = self.models.resolve(name)
        if model is None:
            message = f"The model '{name}' does not exist or you do not have access to it."
            raise LineRefused(message, param="model", code="model_not_found", status=404)
        if not model.capabilities.batch:
            raise refusal.unsupported_value("model", "does not support batches.")
        return model


def policy_of(settings: AnthropicSettings) -> Policy:
    return Policy(
        unsupported=settings.unsupported,
        forced_tool_choice=settings.forced_tool_choice,
        auto_cache=settings.auto_cache,
        api_version=settings.version or Policy.api_version,
    )


@dataclass
class Judge:
    """Applies the policy to one line; `notes` says what was left out of it."""

    policy: Policy
    notes: list[str] = field(default_factory=list)

    def leave_out(self, refused: LineRefused) -> None:
        """A parameter that cannot be had: raises, unless the operator wants such parameters dropped."""
        if self.policy.unsupported == "reject":
            raise refused
        self.notes.append(f"{refused.refused.param}: dropped, {refused.refused.message}")

    def note(self, text: str) -> None:
        self.notes.append(text)
