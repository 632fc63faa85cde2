"""How the process starts, speaks with its supervisor and ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.peers import DEADLINE_SECONDS, HANG, Listener, Manager
from tests.agent.process import ROOT, Agent

Start = Callable[..., Agent]
WATCHDOG = "4000000"  # a quarter of it, the time for a request, is no trouble for a busy machine
RESOLVER = ("127.83.75.1", 53)
MOUNT_RESOLVER = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
AS_IF_BY_JOURNALD = 'JOURNAL_STREAM=$(stat --dereference --format %d:%i /proc/self/fd/2) exec "$@"'
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace of its own")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_it_waits(manager: Manager, start: Start, number: signal.Signals) -> None:
    manager.next_seconds = 900
    agent = start(apiUrl=manager.url)
    agent.says("action=accepted")
    agent.ends_on(number)
    assert f"signal={number.name}" in agent.says("action=stopped")[0]


@pytest.mark.parametrize("kind", ["register", "heartbeat"])
def test_a_signal_ends_it_while_a_request_hangs(manager: Manager, start: Start, kind: str) -> None:
    manager.ready[kind].append(HANG)
    agent = start(apiUrl=manager.url)
    assert manager.requests.await_some(lambda request: request.path.endswith(kind))
    agent.ends_on(signal.SIGTERM)


@needs_root
def test_a_signal_ends_it_while_a_name_look_up_hangs(start: Start, tmp_path: Path) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text(f"nameserver {RESOLVER[0]}\noptions timeout:30\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.settimeout(DEADLINE_SECONDS)
        resolver.bind(RESOLVER)
        under = ("unshare", "--mount", "sh", "-c", MOUNT_RESOLVER, "sh", str(resolv_conf))
        agent = start(apiUrl="https://manager.example", under=under)
        assert b"manager" in resolver.recv(512)
        agent.ends_on(signal.SIGTERM)


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(str(tmp_path / "notify.sock") if request.param == "path" else f"@skyagent-test-{os.getpid()}")
    yield listener
    listener.end()


def test_the_supervisor_hears_of_start_state_and_end(manager: Manager, start: Start, supervisor: Listener) -> None:
    agent = start(apiUrl=manager.url, environ={"NOTIFY_SOCKET": supervisor.name})
    supervisor.hears("STATUS=accepted")
    manager.end()
    supervisor.hears("STATUS=manager_unreachable")
    with Manager(manager.server_port):
        supervisor.hears("STATUS=accepted", count=2)
        agent.ends_on(signal.SIGTERM)
    messages = [*supervisor.messages.all(), *supervisor.hears("STOPPING=1")]
    assert messages[0].startswith("READY=1\nSTATUS=")
    assert not [message for message in messages if "WATCHDOG" in message]


def test_the_watchdog_is_fed_while_it_waits(manager: Manager, start: Start, listener: Listener) -> None:
    manager.next_seconds = 900
    start(apiUrl=manager.url, environ={"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": WATCHDOG})
    listener.hears("STATUS=accepted")
    fed = listener.messages.all().count("WATCHDOG=1")
    listener.hears("WATCHDOG=1", count=fed + 2)


def test_the_watchdog_is_fed_through_hanging_requests(manager: Manager, start: Start, listener: Listener) -> None:
    manager.ready["heartbeat"].extend([HANG, HANG])
    agent = start(apiUrl=manager.url, environ={"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": WATCHDOG})
    assert "timed out" in agent.says("action=manager_unreachable")[0]
    listener.hears("STATUS=accepted")
    messages = listener.messages.all()
    assert "WATCHDOG=1" in messages[messages.index(listener.hears("STATUS=manager_unreachable")[0]) :]


def test_a_frozen_process_feeds_no_watchdog(manager: Manager, start: Start, listener: Listener) -> None:
    agent = start(apiUrl=manager.url, environ={"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": WATCHDOG})
    listener.hears("STATUS=accepted")
    agent.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, agent.process.pid, os.WSTOPPED)
    listener.mark()  # the socket keeps the order: what was sent before is heard before
    fed = len(listener.messages.all())
    assert not listener.messages.await_some(lambda _: True, fed + 1, deadline=3)[fed:]
    agent.process.send_signal(signal.SIGCONT)
    listener.hears("WATCHDOG=1", count=listener.messages.all()[:fed].count("WATCHDOG=1") + 1)


def test_the_watchdog_of_another_process_is_not_fed(manager: Manager, start: Start, listener: Listener) -> None:
    environ = {"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": WATCHDOG, "WATCHDOG_PID": str(os.getpid())}
    start(apiUrl=manager.url, environ=environ)
    manager.heartbeats(3)
    assert not [message for message in listener.messages.all() if "WATCHDOG" in message]


def test_a_supervisor_that_is_gone_is_no_reason_to_fail(manager: Manager, start: Start, tmp_path: Path) -> None:
    start(apiUrl=manager.url, environ={"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": WATCHDOG})
    manager.heartbeats(3)


@pytest.mark.parametrize(("url", "code"), [(None, 0), ("nonsense", 2)], ids=["works", "is misconfigured"])
def test_a_closed_stderr_is_no_reason_to_fail(manager: Manager, start: Start, url: str | None, code: int) -> None:
    agent = start(apiUrl=url or manager.url, under=("sh", "-c", 'exec "$@" 2>&-', "sh"))
    if not code:
        manager.heartbeats(2)
        agent.process.terminate()
    assert agent.exit_code() == code


def test_lines_on_a_terminal_begin_with_the_time(manager: Manager, start: Start) -> None:
    line = start(apiUrl=manager.url, environ={"JOURNAL_STREAM": "8:12345"}).says("action=accepted")[0]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} INFO action=accepted ", line)


def test_lines_for_the_journal_begin_with_the_priority(manager: Manager, start: Start) -> None:
    agent = start(apiUrl=manager.url, under=("sh", "-c", AS_IF_BY_JOURNALD, "sh"))
    agent.says("action=accepted")
    agent.ends_on(signal.SIGTERM)
    said = [line[:14] for line in agent.lines.all()]
    assert said == ["<4>action=dock", "<6>action=regi", "<6>action=acce", "<6>action=stop"]


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_what_needs_no_network_loads_no_http_library(argument: str) -> None:
    run = "runpy.run_module('skyagent', run_name='__main__')"
    code = f"import runpy, sys\ntry: {run}\nfinally: print('httpcore' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code, argument], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "False"
    assert re.search(r"^\d+\.\d+\.\d+$|--config FILE", answer.stdout, re.MULTILINE)


def test_plain_loopback_loads_no_certificates(manager: Manager, start: Start, tmp_path: Path) -> None:
    """The store that would be loaded is a pipe which nobody writes: whoever opened it would wait for ever."""
    store = tmp_path / "store.pem"
    os.mkfifo(store)
    start(apiUrl=manager.url, environ={"SSL_CERT_FILE": str(store)})
    manager.heartbeats(1)
