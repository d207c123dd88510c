"""Sink: one score row per line."""
