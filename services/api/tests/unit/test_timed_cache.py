"""What is remembered of API keys: not for long, and not too many."""

from floopy_api.core.authentication import TimedCache


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def test_a_value_is_forgotten_after_its_time() -> None:
    clock = Hand()
    cache: TimedCache[str] = TimedCache(30.0, 10, clock)
    cache.keep(b"a", "value")

    clock.at = 29.9
    assert cache.get(b"a") == "value"
    clock.at = 30.0
    assert cache.get(b"a") is None


def test_reading_does_not_prolong_a_value() -> None:
    clock = Hand()
    cache: TimedCache[str] = TimedCache(30.0, 10, clock)
    cache.keep(b"a", "value")
    for moment in range(30):
        clock.at = float(moment)
        cache.get(b"a")

    clock.at = 30.0
    assert cache.get(b"a") is None


def test_the_oldest_makes_room() -> None:
    cache: TimedCache[int] = TimedCache(30.0, 3, Hand())
    for number in range(5):
        cache.keep(bytes([number]), number)

    assert [cache.get(bytes([number])) for number in range(5)] == [None, None, 2, 3, 4]


def test_a_ttl_of_zero_remembers_nothing() -> None:
    cache: TimedCache[str] = TimedCache(0.0, 10, Hand())
    cache.keep(b"a", "value")

    assert cache.get(b"a") is None
