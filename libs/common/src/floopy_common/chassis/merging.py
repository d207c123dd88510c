"""Calls that are made together become one call, so that many small things cost hardly more than one.

A round trip to a database costs both sides far more than what it carries. Whoever works on many documents
side by side asks for them in the same turn of the event loop; here those questions meet.
"""

import asyncio
import copy
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")
_Call = Callable[[list[_Question]], Awaitable[Sequence[_Answer | Exception]]]

_AT_ONCE = 64
"""Questions that one call carries at most."""
ABOUT_ONE = 8
"""Questions about one subject that one call carries at most."""
_OUT = 2
"""Calls of one group that are out at the same time: what is asked meanwhile goes with the next."""


@dataclass(slots=True)
class _Asked(Generic[_Question, _Answer]):
    question: _Question
    subject: Hashable
    answer: asyncio.Future[_Answer]


@dataclass(slots=True)
class _Group(Generic[_Question, _Answer]):
    call: _Call[_Question, _Answer]
    waiting: list[_Asked[_Question, _Answer]] = field(default_factory=list)
    out: int = 0
    is_woken: bool = False

    def take(self) -> list[_Asked[_Question, _Answer]]:
        """The next questions that somebody still waits for, not too many of them about one subject."""
        taken: list[_Asked[_Question, _Answer]] = []
        left: list[_Asked[_Question, _Answer]] = []
        same: Counter[Hashable] = Counter()
        for asked in self.waiting:
            if asked.answer.done():
                continue
            if len(taken) == _AT_ONCE or same[asked.subject] == ABOUT_ONE:
                left.append(asked)
                continue
            taken.append(asked)
            if asked.subject is not None:
                same[asked.subject] += 1
        self.waiting = left
        return taken


class Merger(Generic[_Question, _Answer]):
    """Asks together what is asked in one turn of the event loop, or while earlier calls are out."""

    def __init__(
        self,
        about_all: type[Exception] = Exception,
        *,
        within: float | None = None,
        late: Callable[[str], Exception] = TimeoutError,
    ) -> None:
        """`about_all`: what a call may raise that one of its questions alone cannot be to blame for.

        Who has no answer `within` so many seconds gets what `late` makes of a message: a call that hangs
        must not keep those waiting who are behind it.
        """
        self._about_all = about_all
        self._within = within
        self._late = late
        self._groups: dict[Hashable, _Group[_Question, _Answer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(
        self, name: Hashable, question: _Question, call: _Call[_Question, _Answer], subject: Hashable = None
    ) -> _Answer:
        """The answer to `question`, asked by `call` along with others of the group `name`.

        `call` returns an answer to every question; an exception among them is raised to who asked, one of
        `about_all` that it raises to all. Where it raises another, nothing was sent, and each question is
        asked alone. No call carries more than `ABOUT_ONE` questions about the same `subject`; None is no
        subject. A call goes on when somebody who waits for it is cancelled, or gives up.
        """
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(call)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Answer] = loop.create_future()
        group.waiting.append(_Asked(question, subject, answer))
        self._wake(name, group)
        if self._within is None:
            return await answer
        patience = loop.call_later(self._within, self._give_up, answer)
        try:
            return await answer
        finally:
            patience.cancel()

    def _give_up(self, answer: "asyncio.Future[_Answer]") -> None:
        _tell(answer, self._late(f"no answer within {self._within:g} s"))

    def _wake(self, name: Hashable, group: _Group[_Question, _Answer]) -> None:
        """Send soon: whoever is about to run in this turn of the loop may still ask."""
        if not group.is_woken:
            group.is_woken = True
            asyncio.get_running_loop().call_soon(self._send, name, group)

    def _send(self, name: Hashable, group: _Group[_Question, _Answer]) -> None:
        group.is_woken = False
        while group.out < _OUT and (taken := group.take()):
            group.out += 1
            task = asyncio.get_running_loop().create_task(self._run(name, group, taken))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if not group.waiting and not group.out:
            self._groups.pop(name, None)

    async def _run(
        self,
        name: Hashable,
        group: _Group[_Question, _Answer],
        taken: list[_Asked[_Question, _Answer]],
    ) -> None:
        try:
            answers = await self._answers(group.call, [asked.question for asked in taken])
        except BaseException:
            for asked in taken:
                asked.answer.cancel()
            raise
        finally:
            group.out -= 1
        told = Counter(map(id, answers))
        for asked, answer in zip(taken, answers, strict=True):
            _tell(asked.answer, _own(answer) if told[id(answer)] > 1 else answer)
        # behind those who have just been answered: what they ask next goes along
        self._wake(name, group)

    async def _answers(
        self, call: _Call[_Question, _Answer], questions: list[_Question]
    ) -> Sequence[_Answer | Exception]:
        try:
            return await call(questions)
        except self._about_all as error:
            return [error] * len(questions)
        except Exception as error:  # noqa: BLE001 - raised to whose question it is about
            if len(questions) == 1:
                return [error]
            return [(await self._answers(call, [question]))[0] for question in questions]


def _own(answer: _Answer | Exception) -> _Answer | Exception:
    """One of its own for each who is told: an exception that is raised twice mixes up where and why."""
    if not isinstance(answer, Exception):
        return answer
    # not by its constructor, which takes what is in no exception's `args`
    own = type(answer).__new__(type(answer), *answer.args)
    own.__dict__.update(answer.__dict__)
    own.__cause__ = answer
    return own


def _tell(waiting: asyncio.Future[_Answer], answer: _Answer | Exception) -> None:
    if waiting.done():
        return
    if isinstance(answer, Exception):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)


Equalities = dict[str, str | int]


def equalities(filter: Mapping[str, Any], projection: Mapping[str, Any] | None) -> Equalities:
    """The conditions of `filter` by which documents found for many such filters can be told apart.

    None of them where the projection hides one of the fields, or shows parts of one.
    """
    if any(isinstance(value, Mapping) for value in (projection or {}).values()):
        return {}
    found = {
        name: value
        for name, value in filter.items()
        if type(value) in (str, int) and not name.startswith("$") and "." not in name
    }
    hidden = any(not (projection or {}).get(name, 1) for name in found)
    return {} if hidden else found


@dataclass(frozen=True, slots=True)
class Find:
    """One find among others of the same fields, sort and projection: they differ in these values."""

    wanted: Equalities


def merge_finds(finds: Sequence[Find]) -> tuple[dict[str, Any], list[str]]:
    """(conditions that all documents wanted by any of the finds meet, fields by which to hand them out)."""
    conditions: dict[str, Any] = {}
    apart = []
    for name, value in finds[0].wanted.items():
        values = dict.fromkeys(find.wanted[name] for find in finds)
        if len(values) > 1:
            apart.append(name)
            conditions[name] = {"$in": list(values)}
        else:
            conditions[name] = value
    return conditions, apart


def showing(projection: Mapping[str, Any] | None, fields: Sequence[str]) -> Mapping[str, Any] | None:
    """The projection, which shows `fields` as well."""
    if projection and any(projection.values()):
        return {**projection, **dict.fromkeys(fields, 1)}
    return projection


def hand_out(
    documents: Sequence[dict[str, Any]], finds: Sequence[Find], apart: Sequence[str]
) -> list[list[dict[str, Any]]]:
    """Each find's documents in the order they came in; nobody shares one with somebody else."""
    askers: dict[tuple[Any, ...], list[int]] = {}
    for number, find in enumerate(finds):
        askers.setdefault(tuple(find.wanted[name] for name in apart), []).append(number)
    found: list[list[dict[str, Any]]] = [[] for _ in finds]
    for document in documents:
        first = True
        for values in itertools.product(*(_values(document.get(name)) for name in apart)):
            for number in askers.get(values, ()):
                found[number].append(document if first else copy.deepcopy(document))
                first = False
    return found


def _values(value: Any) -> Sequence[Any]:
    """What an equality with the field would be true of: an array equals each of its elements."""
    items = value if isinstance(value, list) else [value]
    # 64-bit integers and floats equal the integers that were asked for, booleans do not
    return list(
        dict.fromkeys(i for i in items if isinstance(i, (str, int, float)) and not isinstance(i, bool))
    )
