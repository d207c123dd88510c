"""Validates, plans and submits batches to the providers."""
