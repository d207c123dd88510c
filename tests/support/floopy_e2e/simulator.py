"""The simulator's control API, as the end-to-end suites know it."""

from floopy.simulation import KEPT, Simulator

__all__ = ["KEPT", "Simulator"]
