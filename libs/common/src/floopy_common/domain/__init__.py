"""Pure words of the product: states, transitions, identities; no I/O and no clock."""
