"""Shared domain, stores, providers and chassis of Floopy Batch."""
