"""How far a connection has got."""

import socket

from skyctl.host import tcp


def test_how_far_the_other_side_of_a_unix_socket_has_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert tcp.progress(ours.fileno(), 0) == (0, 0)
        ours.sendall(b"x" * 1000)
        waiting, before = tcp.progress(ours.fileno(), 50)
        assert waiting >= 1000
        theirs.recv(1000)
        assert tcp.progress(ours.fileno(), 0)[0] == 0
        assert tcp.progress(ours.fileno(), 0)[1] > before
