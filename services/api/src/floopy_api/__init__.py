"""HTTP surface: files, batches, requests."""
