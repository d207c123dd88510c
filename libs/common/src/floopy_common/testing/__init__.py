"""Factories and suites shared by the test suites; never imported by production code."""
