"""What a plan keeps of a translation, so that the same line gives the same bytes as long as it is needed."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec

from floopy_common.domain.errors import BlobCorrupt
from floopy_common.providers.anthropic.capabilities import Model, Models
from floopy_common.providers.anthropic.policy import Context, Policy, StoredFile
from floopy_submitter.ports import Document


class PinnedFile(msgspec.Struct, frozen=True):
    """A file as it was while the batch was planned; its blobs are kept for the batch."""

    filename: str
    bytes: int
    ranges: list[Document]


class Pinned(msgspec.Struct):
    """`models` by the name of each group; `files` by id, None for an id that names nothing.

    `shared_prefixes` are the keys, in hex, of prompts that lines have in common.
    """

    policy: Policy
    models: dict[str, Model | None]
    shared_prefixes: list[str] = msgspec.field(default_factory=list)
    files: dict[str, PinnedFile | None] = msgspec.field(default_factory=dict)

    def context(self, salt: bytes) -> Context:
        """For lines that refer to no file."""
        return Context(
            models=_Table(self.models),
            policy=self.policy,
            salt=salt,
            shared_prefixes=frozenset(bytes.fromhex(key) for key in self.shared_prefixes),
        )


class _Table:
    def __init__(self, models: Mapping[str, Model | None]) -> None:
        self._models = models

    def resolve(self, name: str) -> Model | None:
        return self._models.get(name)


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Pinned).decode


def pin(policy: Policy, models: Models, names: Iterable[str]) -> Pinned:
    """The context as it is now."""
    return Pinned(policy, {name: models.resolve(name) for name in names})


def to_bytes(pinned: Pinned) -> bytes:
    return _encode(pinned)


def from_bytes(raw: bytes) -> Pinned:
    """Raises BlobCorrupt for what is none."""
    try:
        return _decode(raw)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BlobCorrupt(f"the context of a translation cannot be read: {error}") from error


def with_files(context: Context, files: Mapping[str, StoredFile]) -> Context:
    return replace(context, files=files)
