"""A manager by HTTPS behind a proxy, which alone knows its name: reached by CONNECT, encrypted from end to end."""

from __future__ import annotations

import base64
import selectors
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.agent.peers import TOKEN, Journal, Manager
from tests.agent.process import Agent
from tests.support.certificates import authority, server_context

Start = Callable[..., Agent]
NAME = "manager.invalid"


class Proxy(socketserver.ThreadingTCPServer):
    """A proxy that makes tunnels, and notes what it is asked and what goes through them."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.target, self.refusal, self.user = target, "", ""
        self.asked: Journal[str] = Journal()
        self.carried: Journal[bytes] = Journal()
        self._serving = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._serving.start()

    def url(self, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.server_address[1]}"

    def end(self) -> None:
        self.shutdown()
        self._serving.join()
        self.server_close()


class Tunnel(socketserver.StreamRequestHandler):
    """A request for a tunnel, and the tunnel."""

    server: Proxy

    def handle(self) -> None:
        head = [self.rfile.readline().decode().strip()]
        while head[-1]:
            head.append(self.rfile.readline().decode().strip())
        if not head[0]:  # the agent has only looked which address of its own leads here
            return
        self.server.asked.add("\n".join(head))
        if refusal := self.server.refusal or self._stranger(head):
            self.wfile.write(f"HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n".encode())
            return
        with socket.create_connection(self.server.target) as manager:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self._carry(manager)

    def _stranger(self, head: list[str]) -> str:
        allowed = base64.b64encode(self.server.user.encode()).decode()
        known = not self.server.user or f"Proxy-Authorization: Basic {allowed}" in head
        return "" if known else "407 Proxy Authentication Required"

    def _carry(self, manager: socket.socket) -> None:
        with selectors.DefaultSelector() as ready, suppress(OSError):
            ready.register(self.connection, selectors.EVENT_READ, (self.connection, manager))
            ready.register(manager, selectors.EVENT_READ, (manager, self.connection))
            while True:
                for key, _ in ready.select():
                    source, target = key.data
                    if not (content := source.recv(65536)):
                        return
                    self.server.carried.add(content)
                    target.sendall(content)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority(tmp_path_factory.mktemp("tls"), NAME)


@pytest.fixture
def hidden(certificate: Path) -> Iterator[Manager]:
    """A manager whose name nobody but the proxy can look up."""
    with Manager(tls=server_context(certificate)) as manager:
        manager.url = f"https://{NAME}:{manager.server_port}"
        yield manager


@pytest.fixture
def proxy(hidden: Manager) -> Iterator[Proxy]:
    proxy = Proxy(("127.0.0.1", hidden.server_port))
    yield proxy
    proxy.end()


@pytest.mark.parametrize("variable", ["https_proxy", "ALL_PROXY"])
def test_all_goes_through_one_tunnel_in_which_the_proxy_reads_nothing(
    hidden: Manager, proxy: Proxy, start: Start, certificate: Path, variable: str
) -> None:
    start(apiUrl=hidden.url, caFile=str(certificate), environ={variable: proxy.url()})
    hidden.registrations(1)
    assert hidden.heartbeats(3)[0].headers["Authorization"] == f"Bearer {TOKEN}"
    [asked] = proxy.asked.all()
    assert asked.startswith(f"CONNECT {NAME}:{hidden.server_port} HTTP/1.1\n")
    assert "Authorization" not in asked
    carried = b"".join(proxy.carried.all())
    assert len(carried) > 1000
    assert TOKEN.encode() not in carried
    assert b"heartbeat" not in carried


def test_the_proxy_alone_gets_its_password(hidden: Manager, proxy: Proxy, start: Start, certificate: Path) -> None:
    proxy.user = "host:pa55"
    start(apiUrl=hidden.url, caFile=str(certificate), environ={"HTTPS_PROXY": proxy.url("host:pa55@")})
    assert "Proxy-Authorization" not in hidden.heartbeats(1)[0].headers


def test_a_password_that_the_proxy_refuses_is_said_and_not_shown(
    hidden: Manager, proxy: Proxy, start: Start, certificate: Path
) -> None:
    proxy.user = "host:pa55"
    agent = start(apiUrl=hidden.url, caFile=str(certificate), environ={"HTTPS_PROXY": proxy.url("host:wrong@")})
    assert "407 Proxy Authentication Required" in agent.says("action=manager_unreachable")[0]
    assert "wrong" not in "".join(agent.lines.all())
    assert hidden.requests.all() == []


def test_a_proxy_that_makes_no_tunnel_is_asked_again(
    hidden: Manager, proxy: Proxy, start: Start, certificate: Path
) -> None:
    proxy.refusal = "503 Service Unavailable"
    agent = start(apiUrl=hidden.url, caFile=str(certificate), environ={"HTTPS_PROXY": proxy.url()})
    assert "503 Service Unavailable" in agent.says("action=manager_unreachable")[0]
    proxy.refusal = ""
    hidden.heartbeats(1)


def test_another_who_answers_through_the_tunnel_is_told_nothing(
    hidden: Manager, proxy: Proxy, start: Start, tmp_path: Path
) -> None:
    """A proxy that opens what it carries has a certificate of its own."""
    other = authority(tmp_path, NAME)
    agent = start(apiUrl=hidden.url, caFile=str(other), environ={"HTTPS_PROXY": proxy.url()})
    assert "CERTIFICATE_VERIFY_FAILED" in agent.says("action=manager_unreachable")[0]
    assert hidden.requests.all() == []
