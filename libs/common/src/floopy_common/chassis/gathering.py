"""Small deliveries gather: what follows one closely waits for what follows it, and comes together."""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from aiokafka import AIOKafkaConsumer

_SPACING: Final = 0.2
"""Seconds from a small delivery to the next one at least."""
_LONGEST: Final = 0.5
"""The same where small deliveries follow one another all the time."""
_SMALL: Final = 500
"""Records of a delivery that is worth waiting after: a larger one costs little more for coming alone."""


class Gathering:
    """Keeps a consumer from fetching for a while after each small delivery.

    A delivery costs some twenty calls to the database and the broker, however few lines it brings. The first
    after a quiet time is never late, and after a large one, as they come under load, there is no wait. Each
    that was there as soon as it was asked for makes the next wait longer. What is paused are the partitions,
    not the consumer: it polls and beats on, and stopping it waits for nothing.
    """

    def __init__(self, spacing: float = _SPACING, longest: float = _LONGEST) -> None:
        self._shortest, self._longest = spacing, longest
        self._spacing = spacing
        self._resumed_at = -math.inf
        self._consumer: AIOKafkaConsumer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._in_hand = False

    def begun(self, consumer: AIOKafkaConsumer, records: int, is_all: Callable[[], bool]) -> None:
        """A delivery has just come. `is_all`: whether the broker had no more of its partitions just now."""
        self.forget()
        self._in_hand = True
        if records < _SMALL and is_all():
            # before the client asks for more: what it fetched early would keep out all that comes after it
            self._consumer = consumer
            consumer.pause(*consumer.assignment())
            loop = asyncio.get_running_loop()
            follows = loop.time() - self._resumed_at < self._shortest
            self._spacing = min(2 * self._spacing, self._longest) if follows else self._shortest
            self._timer = loop.call_later(self._spacing, self._due)

    def ended(self) -> None:
        """The delivery is committed or given back."""
        self._in_hand = False
        if self._timer is None:
            self._resume()

    def forget(self) -> None:
        """The connection is at its end, and its partitions with it."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._consumer = None
        self._in_hand = False

    def _due(self) -> None:
        self._timer = None
        if not self._in_hand:
            self._resume()

    def _resume(self) -> None:
        if self._consumer is not None:
            # those that came with a new assignment meanwhile were never paused
            self._consumer.resume(*self._consumer.paused())
            self._consumer = None
            self._resumed_at = asyncio.get_running_loop().time()
