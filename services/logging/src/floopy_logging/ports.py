"""What logging's rows are: documents, and nothing of the outside."""

from typing import Any

Document = dict[str, Any]
"""A stored document; collections.py says what each holds."""
