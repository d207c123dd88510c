"""Sink: one request-log row per line."""
