"""What the suites of the sinks share: segments of line events, and a sink under test."""
