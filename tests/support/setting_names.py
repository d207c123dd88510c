"""Whether an environment variable is one that the code reads."""

from typing import Any

from pydantic import BaseModel

from floopy_common.settings import Settings


def is_setting(variable: str) -> bool:
    """True when `variable` names a setting or a group of settings."""
    model: Any = Settings
    for name in variable.removeprefix("FLOOPY_").lower().split("__"):
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or name not in model.model_fields:
            return False
        model = model.model_fields[name].annotation
    return True
