"""Fixtures of the sinks' suites."""

from floopy_sinks.plugin import bench, local_bench

__all__ = ["bench", "local_bench"]
