"""The commands of `floopy`, one module each."""
