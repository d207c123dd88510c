"""From line events to ledger rows, and from rows to a batch's usage."""
