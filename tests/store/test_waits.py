"""Each wait for the database ends at its own limit, and no other connection with it."""

import socket
from collections.abc import Iterator

import pytest

from skyctl.domain.errors import DatabaseUnavailable
from skyctl.store.waits import Waits

SOON, NEVER = 0.05, 600


@pytest.fixture
def connections() -> Iterator[list[socket.socket]]:
    """Connections on which nothing comes."""
    pairs = [socket.socketpair() for _ in range(3)]
    yield [ours for ours, _ in pairs]
    for each in (end for pair in pairs for end in pair):
        each.close()


def has_ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


def test_the_shorter_of_two_ends_though_it_began_later(connections: list[socket.socket]) -> None:
    waits, (longer, shorter, last) = Waits(), connections
    with waits.at_most(NEVER, longer.fileno()):
        with waits.at_most(SOON, shorter.fileno()):
            assert shorter.recv(1) == b""
        with waits.at_most(SOON, last.fileno()):
            assert last.recv(1) == b""
        assert not has_ended(longer)


def test_what_was_done_in_time_is_left_alone(connections: list[socket.socket]) -> None:
    waits, (done, later, _) = Waits(), connections
    with waits.at_most(SOON, done.fileno()):
        pass
    with waits.at_most(2 * SOON, later.fileno()):
        assert later.recv(1) == b""
    assert not has_ended(done)


def test_given_up_all_end_and_none_begins(connections: list[socket.socket]) -> None:
    waits, (one, other, _) = Waits(), connections
    with waits.at_most(NEVER, one.fileno()), waits.at_most(NEVER, other.fileno()):
        waits.give_up()
        assert (one.recv(1), other.recv(1)) == (b"", b"")
    with pytest.raises(DatabaseUnavailable), waits.at_most(NEVER, one.fileno()):
        pass
