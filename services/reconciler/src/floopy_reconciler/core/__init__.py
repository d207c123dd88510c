"""What a reconciler decides: pure where it can be, every effect through ports."""
