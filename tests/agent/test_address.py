"""The address that the agent reports: in a network of its own, with the names and routes of each test."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.agent.peers import Journal, Manager, Request
from tests.agent.process import Agent

Start = Callable[..., Agent]
OWN, OWN6, DEAD6 = "192.0.2.5", "2001:db8::5", "2001:db8:1::1"
NAME = "manager.test"
# Whatever leaves is lost without a word: nobody is at the other end.
NETWORK = f"""
set -e
ip link set lo up
ip link add out type veth peer name nobody
ip link set out arp off
ip link set nobody up
ip link set out up
ip address add {OWN}/24 dev out
ip -6 address add {OWN6}/64 dev out nodad
ip route add default dev out
ip -6 route add default dev out
mount --bind "$1" /etc/hosts
mount --bind "$2" /etc/resolv.conf
echo ready
exec sleep infinity
"""
CLONE_NEWNET = 0x40000000

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network of its own")


class Network:
    """A network namespace, with a mount namespace whose names are the test's."""

    def __init__(self, folder: Path) -> None:
        self.hosts, resolvers = folder / "hosts", folder / "resolv.conf"
        self.hosts.touch()
        resolvers.write_text(f"nameserver {OWN}\n")
        command = ["unshare", "--net", "--mount", "sh", "-c", NETWORK, "sh", str(self.hosts), str(resolvers)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"
        self.under = ("nsenter", f"--target={self._process.pid}", "--net", "--mount")

    def within(self, make: Callable[[], object]) -> None:
        """Call in a thread that is in the network: a socket stays where it was made."""
        thread = threading.Thread(target=self._enter_and, args=(make,))
        thread.start()
        thread.join()

    def _enter_and(self, make: Callable[[], object]) -> None:
        with Path(f"/proc/{self._process.pid}/ns/net").open() as network:
            assert ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET) == 0
        make()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    network = Network(tmp_path)
    yield network
    network.end()


@pytest.fixture
def far(network: Network) -> Iterator[Manager]:
    """A manager at every IPv4 address of the network, and at no IPv6 address."""
    made: list[Manager] = []
    network.within(lambda: made.append(Manager(address="0.0.0.0")))
    yield made[0]
    made[0].end()


@pytest.mark.parametrize("first", [OWN6, DEAD6], ids=["refused", "lost"])
def test_it_is_that_of_the_address_that_answered(network: Network, far: Manager, start: Start, first: str) -> None:
    network.hosts.write_text(f"{first} {NAME}\n{OWN} {NAME}\n")
    start(apiUrl=f"http://{NAME}:{far.server_port}", insecure=True, under=network.under)
    assert far.registrations(1)[0].body["ipAddress"] == OWN
    far.heartbeats(3)
    assert len([request for request in far.requests.all() if request.path.endswith("/register")]) == 1


@pytest.mark.parametrize("loopback", ["127.0.1.1", "127.0.0.1"])
def test_it_is_one_that_others_can_use_where_this_hosts_own_name_is_loopback(
    network: Network, far: Manager, start: Start, loopback: str
) -> None:
    network.hosts.write_text(f"{loopback} {NAME}\n")
    start(apiUrl=f"http://{NAME}:{far.server_port}", insecure=True, under=network.under)
    assert far.registrations(1)[0].body["ipAddress"] == OWN


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_manager_that_is_said_to_be_on_loopback_is_told_loopback(
    network: Network, far: Manager, start: Start, host: str
) -> None:
    network.hosts.write_text("127.0.0.1 localhost\n")
    start(apiUrl=f"http://{host}:{far.server_port}", under=network.under)
    assert far.registrations(1)[0].body["ipAddress"] == "127.0.0.1"


def test_nobody_is_asked_for_names_while_the_connection_stands(network: Network, far: Manager, start: Start) -> None:
    network.hosts.write_text(f"{OWN} {NAME}\n")
    questions: Journal[bytes] = Journal()
    resolver: list[socket.socket] = []
    network.within(lambda: resolver.append(_bound()))
    listening = threading.Thread(target=_listen, args=(resolver[0], questions))
    listening.start()
    start(apiUrl=f"http://{NAME}:{far.server_port}", insecure=True, under=network.under)
    far.heartbeats(1)
    network.hosts.write_text("")
    far.heartbeats(5)
    resolver[0].sendto(b"", (OWN, 53))
    listening.join()
    resolver[0].close()
    assert questions.all() == []


@pytest.mark.parametrize(("proxy", "reported"), [(OWN, OWN), ("127.0.0.1", OWN), ("proxy.test", OWN)])
def test_behind_a_proxy_it_is_that_towards_the_proxy_which_alone_knows_the_manager(
    network: Network, far: Manager, start: Start, proxy: str, reported: str
) -> None:
    """The manager of the test is asked as a proxy would be: by the whole URL."""
    network.hosts.write_text(f"{OWN} proxy.test\n")
    environ = {"http_proxy": f"http://{proxy}:{far.server_port}"}
    start(apiUrl="http://manager.invalid", insecure=True, environ=environ, under=network.under)

    def is_registration(request: Request) -> bool:
        return request.path == "http://manager.invalid/api/workers/register"

    found = far.requests.await_some(is_registration)
    assert [request.body["ipAddress"] for request in found] == [reported]


def test_another_address_is_news(network: Network, far: Manager, start: Start) -> None:
    network.hosts.write_text(f"{OWN} {NAME}\n")
    agent = start(apiUrl=f"http://{NAME}:{far.server_port}", insecure=True, under=network.under)
    far.heartbeats(1)
    moved = "198.51.100.6"
    subprocess.run([*network.under, "ip", "address", "add", f"{moved}/24", "dev", "out"], check=True)
    network.hosts.write_text(f"{moved} {NAME}\n")
    for connection in far.kept:
        with suppress(OSError):  # it is closed already
            connection.shutdown(socket.SHUT_RDWR)
    found = far.requests.await_some(lambda request: (request.body or {}).get("ipAddress") == moved)
    assert found, agent.lines.all()


def _bound() -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind((OWN, 53))
    return bound


def _listen(resolver: socket.socket, questions: Journal[bytes]) -> None:
    while question := resolver.recv(512):
        questions.add(question)
