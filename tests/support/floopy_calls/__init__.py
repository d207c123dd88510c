"""Calls of the API that several suites of it make."""
