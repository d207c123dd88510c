"""The people's command line: local stack, batches, organisations, keys, accounts."""
