"""Which models exist and what each of them takes."""

from datetime import UTC, datetime

import msgspec

from floopy_simulator.anthropic.errors import ApiError

OLD_EFFORTS = ("low", "medium", "high")
EFFORTS = ("low", "medium", "high", "max")
ALL_EFFORTS = ("low", "medium", "high", "xhigh", "max")
SNAPSHOTS = {
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
    "claude-opus-4-5": "claude-opus-4-5-20251101",
}
ALIASES = {snapshot: alias for alias, snapshot in SNAPSHOTS.items()}
MILLION = 1_000_000


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes. `thinks` says whether it thinks unless told otherwise."""

    name: str
    released: str
    context: int = MILLION
    max_tokens: int = 128_000
    thinking: tuple[str, ...] = ("adaptive", "disabled")
    thinks: bool = False
    efforts: tuple[str, ...] = ALL_EFFORTS
    samples: bool = False
    """Under 2023-06-01; otherwise only the default values pass."""
    forced_tools: bool = True
    prefills: bool = False
    system_turns: bool = False
    quiet_efforts: tuple[str, ...] = ALL_EFFORTS
    """Efforts that go together with thinking switched off."""
    long_output: bool = True
    """Takes the beta of 300,000 output tokens in a batch."""


def _generation_4_5(name: str, released: str, efforts: tuple[str, ...] = ()) -> Model:
    return Model(
        name=name,
        released=released,
        context=200_000,
        max_tokens=64_000,
        thinking=("enabled", "disabled"),
        efforts=efforts,
        samples=True,
        prefills=True,
        long_output=False,
    )


def _generation_4_6(name: str, released: str) -> Model:
    thinking = ("adaptive", "enabled", "disabled")
    return Model(name=name, released=released, thinking=thinking, efforts=EFFORTS, samples=True)


def _always_thinking(name: str, released: str, *, long_output: bool = False) -> Model:
    return Model(
        name=name,
        released=released,
        thinking=("adaptive",),
        thinks=True,
        forced_tools=False,
        system_turns=True,
        long_output=long_output,
    )


MODELS = {
    model.name: model
    for model in (
        _always_thinking("claude-mythos-5-2", "2026-11-17"),
        _always_thinking("claude-fable-5-2", "2026-11-17"),
        Model(
            name="claude-haiku-5-5",
            released="2026-10-27",
            thinks=True,
            system_turns=True,
            quiet_efforts=OLD_EFFORTS,
            long_output=False,
        ),
        Model(
            name="claude-sonnet-5-5",
            released="2026-10-21",
            thinking=("adaptive", "between_tools"),
            thinks=True,
            forced_tools=False,
            system_turns=True,
            quiet_efforts=OLD_EFFORTS,
        ),
        _always_thinking("claude-opus-5-5", "2026-10-06", long_output=True),
        _always_thinking("claude-mythos-5-1", "2026-09-22"),
        _always_thinking("claude-fable-5-1", "2026-09-22"),
        Model(
            name="claude-opus-5",
            released="2026-07-21",
            thinks=True,
            system_turns=True,
            quiet_efforts=OLD_EFFORTS,
        ),
        Model(name="claude-sonnet-5", released="2026-06-30", thinks=True),
        _always_thinking("claude-mythos-5", "2026-06-16"),
        _always_thinking("claude-fable-5", "2026-06-16"),
        Model(name="claude-opus-4-8", released="2026-05-12", system_turns=True),
        Model(name="claude-opus-4-7", released="2026-04-16"),
        Model(
            name="claude-mythos-preview",
            released="2026-04-07",
            thinking=("adaptive", "enabled"),
            thinks=True,
            efforts=EFFORTS,
            forced_tools=False,
            long_output=False,
        ),
        _generation_4_6("claude-sonnet-4-6", "2026-02-17"),
        _generation_4_6("claude-opus-4-6", "2026-02-05"),
        _generation_4_5("claude-opus-4-5", "2025-11-24", OLD_EFFORTS),
        _generation_4_5("claude-haiku-4-5", "2025-10-15"),
        _generation_4_5("claude-sonnet-4-5", "2025-09-29"),
    )
}
"""Newest first, as they are listed."""


def find_model(name: str, offered: tuple[str, ...]) -> Model | None:
    """Aliases and dated snapshots name the same model."""
    alias = ALIASES.get(name, name)
    return MODELS.get(alias) if alias in offered else None


def require_model(name: str, offered: tuple[str, ...]) -> Model:
    model = find_model(name, offered)
    if model is None:
        raise ApiError(404, f"model: {name}")
    return model


def resolve(name: str) -> str:
    return SNAPSHOTS.get(name, name)


class Listing(msgspec.Struct, frozen=True):
    """A model as the list pages over it."""

    id: str
    model: Model


def list_models(offered: tuple[str, ...]) -> list[Listing]:
    return [Listing(resolve(model.name), model) for model in MODELS.values() if model.name in offered]


def to_wire(listing: Listing) -> dict[str, object]:
    model = listing.model
    line, _, version = model.name.removeprefix("claude-").partition("-")
    created_at = datetime.fromisoformat(model.released).replace(tzinfo=UTC).isoformat()
    return {
        "type": "model",
        "id": listing.id,
        "display_name": f"Claude {line.title()} {version.replace('-', '.')}",
        "line": line,
        "lifecycle": "active",
        "created_at": created_at.replace("+00:00", "Z"),
        "deprecated_at": None,
        "retires_at": None,
        "max_input_tokens": model.context,
        "max_tokens": model.max_tokens,
        "capabilities": _capabilities(model),
    }


def _capabilities(model: Model) -> dict[str, object]:
    yes, no = {"supported": True}, {"supported": False}
    efforts = {name: {"supported": name in model.efforts} for name in ALL_EFFORTS}
    types = ("adaptive", "between_tools", "disabled", "enabled")
    editing = ("clear_thinking_20251015", "clear_tool_uses_20250919", "compact_20260112")
    return {
        "batch": yes,
        "citations": yes,
        "code_execution": yes,
        "context_management": {"supported": True, **dict.fromkeys(editing, yes)},
        "effort": {"supported": bool(model.efforts), **efforts},
        "image_input": yes,
        "pdf_input": yes,
        "server_tools": {"supported": True, "code_execution": no, "web_search": yes},
        "structured_outputs": yes,
        "thinking": {
            "supported": True,
            "types": {kind: {"supported": kind in model.thinking} for kind in types},
        },
    }
