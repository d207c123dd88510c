"""What the end-to-end suites share: the running system, its simulator, and batches to send through it."""
