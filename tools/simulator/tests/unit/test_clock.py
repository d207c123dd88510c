"""The movable clock."""

from floopy_simulator.clock import Clock


def test_the_clock_runs_with_the_wall_and_jumps_when_told():
    wall = [100.0]
    clock = Clock(offset=5.0, wall=lambda: wall[0])

    assert clock.now() == 105.0
    assert clock.advance(-15.0) == 90.0
    wall[0] += 1
    assert clock.now() == 91.0
