"""Anthropic's half: message batches, messages and models."""
