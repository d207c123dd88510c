"""Tools of a chat completions request."""

from typing import Any


def tool(name: str = "look", **members: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **members}}
