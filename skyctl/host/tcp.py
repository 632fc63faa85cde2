"""How far a connection has got, as the kernel counts it."""

import array
import fcntl
import os
import socket
import struct
import termios

_ACKNOWLEDGED = 120  # tcpi_bytes_acked of the kernel's struct tcp_info


def progress(descriptor: int, unsent: int) -> tuple[int, int]:
    """Return how many bytes the other side has not taken so far, and how many it has, ever. Of what a unix socket's has
    taken the kernel keeps no count: there that is how much less is left, with what is `unsent`."""
    waiting = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.TIOCOUTQ, waiting)
    with socket.socket(fileno=os.dup(descriptor)) as ours:
        if ours.family == socket.AF_UNIX:
            return waiting[0], -waiting[0] - unsent
        info = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED + 8)
    return waiting[0], struct.unpack_from("Q", info, _ACKNOWLEDGED)[0]
