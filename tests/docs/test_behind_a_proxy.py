"""Two `serve` behind nginx, which ends TLS, with the configuration of docs/operations.md itself."""

import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from skyctl.operations.agents import install_links, invitations
from skyctl.operations.shared.context import Context
from tests.conftest import SECRET, Process
from tests.support.helpers import PATIENCE_SECONDS, TESTS, add_worker, admin_token, bearer, eventually, need
from tests.support.reporting import agent, all_beat

OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"
MAIN = """daemon off; user root; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{ access_log {folder}/access.log; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi; {ours} }}
"""
AGENTS = 4


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1; its key is in the file beside it."""
    made = tmp_path / "manager.pem"
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(made.with_suffix(".key"))]
    names = ["-subj", "/CN=manager", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([need("openssl"), "req", "-x509", *new, *names, "-out", str(made)], check=True, capture_output=True)
    return made


@pytest.fixture
def proxied(
    tmp_path: Path, certificate: Path, serve: Callable[..., tuple[str, Process]]
) -> Iterator[tuple[str, list[Process]]]:
    """The proxy's address, and the two processes of `serve` behind it."""
    (first, one), (second, two) = (serve("--proxy", "127.0.0.1", WORKER_HEARTBEAT_INTERVAL="0.3") for _ in range(2))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ours = OPERATIONS.read_text().partition("```nginx\n")[2].partition("```")[0]
    for documented, here in {
        "127.0.0.1:8642": urlsplit(first).netloc,
        "127.0.0.1:8643": urlsplit(second).netloc,
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/nginx/manager.pem": str(certificate),
        "/etc/nginx/manager.key": str(certificate.with_suffix(".key")),
    }.items():
        assert documented in ours
        ours = ours.replace(documented, here)
    file = tmp_path / "nginx.conf"
    file.write_text(MAIN.format(folder=tmp_path, ours=ours))
    with subprocess.Popen([need("nginx"), "-c", str(file), "-e", "stderr"], stderr=subprocess.DEVNULL) as nginx:
        yield f"https://127.0.0.1:{port}", [one, two]
        nginx.terminate()


def test_agents_do_not_notice_the_loss_of_one_serve(
    proxied: tuple[str, list[Process]],
    certificate: Path,
    context: Context,
    connection: psycopg.Connection,
    tmp_path: Path,
) -> None:
    url, (first, second) = proxied
    eventually(lambda: _is_ready(url, certificate))
    with ExitStack() as stack:
        agents = [
            stack.enter_context(agent(context, url, tmp_path / f"{n}.json", caFile=str(certificate)))
            for n in range(AGENTS)
        ]
        all_beat(connection)
        first.stop(signal.SIGKILL)
        for _ in range(3):
            all_beat(connection)
        second.stop(signal.SIGKILL)
        for reporter in agents:
            reporter.until("action=manager_failing")
            states = [line for line in reporter.seen if "failures=" in line]
            assert ["action=accepted" in line for line in states] == [True, False], (
                "it noticed nothing but the end of both"
            )


def test_an_administrator_is_known_by_the_clients_address(
    proxied: tuple[str, list[Process]], certificate: Path, connection: psycopg.Connection
) -> None:
    url, _ = proxied
    eventually(lambda: _is_ready(url, certificate))
    worker_id = add_worker(connection)
    headers = bearer(admin_token(SECRET, connection)) | {"X-Forwarded-For": "6.6.6.6"}
    transport = httpx.HTTPTransport(local_address="127.0.0.2", verify=_trust(certificate))
    with httpx.Client(transport=transport, timeout=PATIENCE_SECONDS) as client:
        assert client.post(f"{url}/api/workers/{worker_id}/drain", headers=headers).status_code == 200
    logged = connection.execute("SELECT DISTINCT ip_address FROM activity_logs WHERE ip_address IS NOT NULL").fetchall()
    assert logged == [("127.0.0.2",)]


def test_a_link_is_in_no_log_of_the_proxy(
    proxied: tuple[str, list[Process]], certificate: Path, context: Context, tmp_path: Path
) -> None:
    url, processes = proxied
    eventually(lambda: _is_ready(url, certificate))
    links = [
        urlsplit(install_links.make(context, TESTS, invitations.invite(context, TESTS).worker_id, insecure=True)).path
        for _ in range(2)
    ]
    with httpx.Client(base_url=url, verify=_trust(certificate), timeout=PATIENCE_SECONDS) as client:
        assert client.get(links[0]).text.startswith("#!/bin/sh")
        assert client.get(f"/api{links[0]}").status_code == 410, "it was used, by whichever way"
        for process in processes:
            process.stop(signal.SIGKILL)
        assert client.get(links[1]).status_code == 502, "it is still good, and nobody is there"
        assert client.get("/healthz?last").status_code == 502
    logs = {name: tmp_path / name for name in ("access.log", "error.log")}
    written = {name: eventually(lambda log=log: _with_last(log)) for name, log in logs.items()}  # type: ignore[misc]
    for name, text in written.items():
        assert not [link for link in links if link.rpartition("/")[2] in text], name


def _with_last(log: Path) -> str:
    text = log.read_text() if log.exists() else ""
    return text if "/healthz?last" in text else ""


def _trust(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


def _is_ready(url: str, certificate: Path) -> bool:
    try:
        return httpx.get(f"{url}/readyz", verify=_trust(certificate), timeout=PATIENCE_SECONDS).status_code == 200
    except httpx.TransportError:
        return False
