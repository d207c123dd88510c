"""Ends a command that could not do its work."""

import sys
from typing import NoReturn

import typer


def fail(message: str, code: int = 1) -> NoReturn:
    """Says why on stderr and exits."""
    sys.stderr.write(f"{message}\n")
    raise typer.Exit(code)
