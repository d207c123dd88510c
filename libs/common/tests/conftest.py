"""Fixtures of the sinks' suites."""

from floopy_sinks.plugin import bench

__all__ = ["bench"]
