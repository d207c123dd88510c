"""One journey through files, uploads and batches, for every official SDK, and the table of what came back."""
