"""Ports: outside the ephemeral range, kept over restarts, refused or replaced when taken."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from floopy.backends.ports import LOOPBACK, free_port, is_free
from floopy.stack.ports import PortBook, PortTakenError


@pytest.fixture
def taken_port() -> Iterator[int]:
    port = free_port()
    with socket.create_server((LOOPBACK, port)):
        yield port


def test_free_port_is_below_the_ephemeral_range() -> None:
    lowest_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    assert 1024 < free_port() < lowest_ephemeral


def test_free_port_leaves_out_what_is_taken(taken_port) -> None:
    assert not is_free(taken_port)
    assert free_port(frozenset({taken_port})) != taken_port


def test_port_of_the_last_start_is_kept() -> None:
    port = free_port()

    assert PortBook({"mongod": port}).again("mongod") == port


def test_taken_port_of_the_last_start_is_replaced(taken_port) -> None:
    book = PortBook({"mongod": taken_port})

    assert book.again("mongod") != taken_port
    assert book.ports["mongod"] != taken_port


def test_preferred_port_is_used_where_free() -> None:
    port = free_port()

    assert PortBook({}).again("floopy-api", port) == port


def test_preferred_port_is_left_to_who_has_it(taken_port) -> None:
    assert PortBook({}).again("floopy-api", taken_port) != taken_port


def test_two_names_never_share_a_port() -> None:
    book = PortBook({"mongod": free_port()})

    assert book.again("broker", book.ports["mongod"]) != book.ports["mongod"]


def test_port_asked_for_by_number_is_refused_when_taken(taken_port) -> None:
    with pytest.raises(PortTakenError, match=str(taken_port)):
        PortBook({}).exactly("floopy-api", taken_port)


async def test_released_ports_are_not_waited_for() -> None:
    await PortBook({"mongod": free_port()}).wait_released()
