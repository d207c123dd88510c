"""Batches on their way to a provider: what the submitter's tests share."""
