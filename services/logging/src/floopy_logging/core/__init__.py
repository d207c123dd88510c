"""From line events to rows of the request log."""
