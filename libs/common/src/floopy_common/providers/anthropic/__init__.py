"""Anthropic: chat completions lines to Message Batches requests, and their results back."""
