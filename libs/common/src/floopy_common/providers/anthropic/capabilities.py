"""What each Claude model takes: bundled rows, then the Models API, then the operator's own word."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol

from floopy_common.settings import AnthropicModelSettings

ThinkingDefault = Literal["off", "on", "always"]
ForcedTools = Literal["yes", "not_with_manual_thinking", "no"]

THINKING_TYPES = ("adaptive", "enabled", "disabled", "between_tools")
EFFORTS = ("low", "medium", "high", "xhigh", "max")
ROUTING_PREFIX = "anthropic/"
"""How a caller may name the provider with the model."""

_MAX_REMEMBERED = 1_000
"""Models are named by users; a table remembers so many answers and then starts anew."""
_SNAPSHOT = re.compile(r"-(?:\d{8}|latest)")
_DATE = re.compile(r"-\d{8}$")
_ALL = frozenset(EFFORTS)
_TO_HIGH = frozenset({"low", "medium", "high"})


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """One row; `sampling` says whether temperature and top_p may have other values than 1."""

    max_output: int
    context: int
    thinking: frozenset[str]
    thinking_default: ThinkingDefault
    effort: frozenset[str] = frozenset()
    sampling: bool = False
    forced_tools: ForcedTools = "no"
    mid_system: bool = False
    structured_outputs: bool = True
    images: bool = True
    pdfs: bool = True
    batch: bool = True

    @property
    def adaptive(self) -> bool:
        """False for models that think on a budget only."""
        return "adaptive" in self.thinking

    @property
    def max_images(self) -> int:
        return 100 if self.context <= 200_000 else 600


def _row(
    thinking: str,
    default: ThinkingDefault,
    effort: frozenset[str],
    forced: ForcedTools,
    *,
    mid_system: bool = False,
    sampling: bool = False,
    small: bool = False,
) -> Capabilities:
    return Capabilities(
        max_output=64_000 if small else 128_000,
        context=200_000 if small else 1_000_000,
        thinking=frozenset(thinking.split()),
        thinking_default=default,
        effort=effort,
        sampling=sampling,
        forced_tools=forced,
        mid_system=mid_system,
    )


_NO_EFFORT: frozenset[str] = frozenset()
_NOT_MANUAL: ForcedTools = "not_with_manual_thinking"
_MANUAL = "enabled disabled"
_BOTH = "adaptive enabled disabled"
_ADAPTIVE = "adaptive disabled"

ROWS: Mapping[str, Capabilities] = {
    "claude-haiku-4-5": _row(_MANUAL, "off", _NO_EFFORT, _NOT_MANUAL, sampling=True, small=True),
    "claude-sonnet-4-5": _row(_MANUAL, "off", _NO_EFFORT, _NOT_MANUAL, sampling=True, small=True),
    "claude-opus-4-5": _row(_MANUAL, "off", _TO_HIGH, _NOT_MANUAL, sampling=True, small=True),
    "claude-sonnet-4-6": _row(_BOTH, "off", _TO_HIGH | {"max"}, _NOT_MANUAL, sampling=True),
    "claude-opus-4-6": _row(_BOTH, "off", _TO_HIGH | {"max"}, _NOT_MANUAL, sampling=True),
    "claude-opus-4-7": _row(_ADAPTIVE, "off", _ALL, "yes"),
    "claude-opus-4-8": _row(_ADAPTIVE, "off", _ALL, "yes", mid_system=True),
    "claude-sonnet-5": _row(_ADAPTIVE, "on", _ALL, "yes"),
    "claude-opus-5": _row(_ADAPTIVE, "on", _ALL, "yes", mid_system=True),
    "claude-fable-5": _row("adaptive", "always", _ALL, "no", mid_system=True),
    "claude-mythos-5": _row("adaptive", "always", _ALL, "no", mid_system=True),
    "claude-fable-5-1": _row("adaptive", "always", _ALL, "no"),
    "claude-mythos-5-1": _row("adaptive", "always", _ALL, "no"),
    "claude-opus-5-5": _row("adaptive", "always", _ALL, "no", mid_system=True),
    "claude-sonnet-5-5": _row("adaptive between_tools", "on", _ALL, "no", mid_system=True),
    "claude-haiku-5-5": _row(_ADAPTIVE, "on", _ALL, "yes", mid_system=True),
    "claude-mythos-preview": _row("adaptive enabled", "always", _TO_HIGH | {"max"}, "no"),
}
"""Where sources disagree (demanded calls on Fable 5, system messages in a conversation), a row says no."""

MOST_RESTRICTIVE = replace(
    _row("adaptive", "always", _TO_HIGH, "no"),
    context=200_000,
)
"""For a `claude-*` nobody described: every newer model refuses more than the one before it."""


@dataclass(frozen=True)
class Model:
    """The id that is sent, and what it takes."""

    id: str
    capabilities: Capabilities


class Models(Protocol):
    """What a name means."""

    def resolve(self, name: str) -> Model | None:
        """None for a name that is neither a Claude model's nor one an operator configured."""
        ...


class ModelTable:
    """Models by the name a caller gave; `documents` are the Models API's (models_api.py), in any order.

    That lists a dated model under its dated id alone: the name without a date means the newest of them.
    """

    def __init__(
        self,
        overrides: Mapping[str, AnthropicModelSettings] | None = None,
        documents: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self._overrides = overrides or {}
        by_id = {document["id"]: document for document in documents}
        newest = {_DATE.sub("", model_id): by_id[model_id] for model_id in sorted(by_id)}
        self._documents: Mapping[str, Mapping[str, Any]] = {**newest, **by_id}
        self._known: dict[str, Model | None] = {}

    @property
    def listed(self) -> Collection[str]:
        """Names that the Models API's documents describe; empty without any."""
        return self._documents.keys()

    def resolve(self, name: str) -> Model | None:
        """The operator's word goes over the Models API's, and that over the bundled row."""
        try:
            return self._known[name]
        except KeyError:
            pass
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
        model = self._known[name] = self._look_up(name)
        return model

    def _look_up(self, name: str) -> Model | None:
        wanted = name.removeprefix(ROUTING_PREFIX)
        override = self._overrides.get(wanted)
        model_id = override.id if override is not None and override.id else wanted
        if override is None and not model_id.startswith("claude-"):
            return None
        capabilities = row_of(model_id)
        document = self._documents.get(model_id)
        if document is not None:
            capabilities = overlay(capabilities, document)
        for said in (self._overrides.get(model_id), override):
            if said is not None:
                capabilities = _overridden(capabilities, said)
        return Model(model_id, capabilities)


def row_of(model_id: str) -> Capabilities:
    """The row of a model or of its dated snapshot; the most restrictive one where there is none."""
    return ROWS.get(_row_name(model_id), MOST_RESTRICTIVE)


def is_described(model_id: str) -> bool:
    """Whether a model or the one it is a snapshot of has a row."""
    return _row_name(model_id) in ROWS


def _row_name(model_id: str) -> str:
    if model_id in ROWS:
        return model_id
    snapshot = _SNAPSHOT.search(model_id)
    return model_id[: snapshot.start()] if snapshot and snapshot.end() == len(model_id) else ""


def overlay(row: Capabilities, document: Mapping[str, Any]) -> Capabilities:
    """The row as the Models API's document says it; what that does not publish or leaves null stays."""
    said = _Said(document.get("capabilities"))
    changes: dict[str, Any] = {
        "max_output": _positive(document.get("max_tokens")),
        "context": _positive(document.get("max_input_tokens")),
        "thinking": said.supported_of("thinking", "types", THINKING_TYPES),
        "effort": said.supported_of("effort", None, EFFORTS),
        "structured_outputs": said.supports("structured_outputs"),
        "images": said.supports("image_input"),
        "pdfs": said.supports("pdf_input"),
        # a retired model is listed still, and no request that names it succeeds
        "batch": False if document.get("retired") is True else said.supports("batch"),
    }
    return replace(row, **{name: value for name, value in changes.items() if value is not None})


class _Said:
    """Reads `{"supported": bool}` members out of a document that may lack any of them."""

    def __init__(self, capabilities: Any) -> None:
        self._capabilities = capabilities if isinstance(capabilities, Mapping) else {}

    def supports(self, name: str) -> bool | None:
        return _supported(self._capabilities.get(name))

    def supported_of(self, name: str, inside: str | None, members: tuple[str, ...]) -> frozenset[str] | None:
        found = self._capabilities.get(name)
        if inside is not None and isinstance(found, Mapping):
            found = found.get(inside)
        if not isinstance(found, Mapping):
            return None
        if _supported(found) is False:
            return frozenset()
        said = {member: _supported(found.get(member)) for member in members}
        if all(value is None for value in said.values()):
            return None
        return frozenset(member for member, value in said.items() if value)


def _supported(member: Any) -> bool | None:
    value = member.get("supported") if isinstance(member, Mapping) else None
    return value if isinstance(value, bool) else None


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _overridden(row: Capabilities, override: AnthropicModelSettings) -> Capabilities:
    said = override.model_dump(exclude_none=True)
    names = {field.name for field in fields(Capabilities)}
    return replace(row, **{name: value for name, value in said.items() if name in names})
