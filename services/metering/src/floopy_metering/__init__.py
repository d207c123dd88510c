"""Sink: one ledger row per line, usage per segment."""
