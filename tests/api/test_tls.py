"""TLS by default: an authority of our own, a certificate that is renewed in time, and hosts that trust it and nobody
else."""

import json
import select
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest

from skyctl.domain.errors import Refused
from skyctl.host.certificates import Certificates
from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from tests.agent.process import Agent, agent_command, agent_environ
from tests.conftest import Cli, Process
from tests.support.helpers import PATIENCE_SECONDS, TESTS, eventually, need

Serve = Callable[..., tuple[str, Process]]
NOW = datetime.now(UTC)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """Where the command line of the test keeps them."""
    return Certificates(tmp_path / "data")


def trusting(authority: Path) -> ssl.SSLContext:
    """A client that trusts this authority alone, and is strict about what it says."""
    context = ssl.create_default_context(cafile=str(authority))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def ask(url: str, authority: Path) -> bytes:
    """The certificate that a server shows to a client which trusts the authority."""
    client = httpx.Client(verify=trusting(authority), timeout=PATIENCE_SECONDS)
    with client, client.stream("GET", f"{url}/healthz") as response:
        assert response.status_code == 200
        shown: bytes = response.extensions["network_stream"].get_extra_info("ssl_object").getpeercert(True)
    return shown


def test_it_is_made_once_and_grows_by_names(
    cli: Cli, certificates: Certificates, connection: psycopg.Connection
) -> None:
    assert cli("tls", "show").returncode == 4
    made = cli("tls", "init", "--host", "Manager.Example.com", SKYCTL_API_URL="https://api.example.com:8642")
    assert made.returncode == 0, made.stderr
    assert "server.pem for manager.example.com, " in made.stderr
    for file in certificates.folder.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    authority, server = json.loads(cli("tls", "show", "-o", "json").stdout)["certificates"]
    assert {"manager.example.com", "api.example.com", "localhost", "127.0.0.1", "::1"} <= set(server["names"])
    ends = datetime.fromisoformat(authority["endsAt"])
    assert timedelta(days=3649) <= ends - NOW <= timedelta(days=3651)
    assert server["fingerprint"] in cli("tls", "show").stdout

    api = {"SKYCTL_API_URL": "https://api.example.com:8642"}
    again = cli("tls", "init", **api)
    assert "is there already" in again.stderr
    assert json.loads(cli("tls", "show", "-o", "json").stdout)["certificates"] == [authority, server]
    cli("tls", "init", "--host", "10.9.8.7", **api)
    same, grown = json.loads(cli("tls", "show", "-o", "json").stdout)["certificates"]
    assert same == authority, "hosts go on trusting it"
    assert set(grown["names"]) == {*server["names"], "10.9.8.7"}
    cli("tls", "init", "--renew", **api)
    same, renewed = json.loads(cli("tls", "show", "-o", "json").stdout)["certificates"]
    assert (same, renewed["names"]) == (authority, grown["names"])
    assert renewed["fingerprint"] != grown["fingerprint"]
    events = connection.execute(
        "SELECT details ->> 'fingerprint' FROM worker_events WHERE kind = 'certificate_made' ORDER BY seq"
    )
    assert events.fetchall() == [(each["fingerprint"],) for each in (server, grown, renewed)]
    assert "certificate_made" in cli("events").stdout


@pytest.mark.parametrize("name", ["two words", "", "*", "a/b", "ümlaut", "x" * 300])
def test_what_is_no_name_is_said(cli: Cli, certificates: Certificates, name: str) -> None:
    refused = cli("tls", "init", "--host", name)
    assert refused.returncode == 2
    assert "--host" in refused.stderr
    assert not certificates.folder.exists()


def test_openssl_agrees(certificates: Certificates) -> None:
    certificates.make(["localhost", "127.0.0.1"], NOW)
    verify = [need("openssl"), "verify", "-x509_strict", "-purpose", "sslserver", "-verify_ip", "127.0.0.1", "-CAfile"]
    done = subprocess.run(
        [*verify, certificates.authority, certificates.server], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == f"{certificates.server}: OK", done.stderr


def test_it_is_renewed_before_it_ends_and_not_earlier(certificates: Certificates) -> None:
    certificates.make(["localhost"], NOW)
    server = certificates.inspect()[-1]
    assert not certificates.renew_if_due(server.ends_at - timedelta(days=61))
    assert certificates.renew_if_due(server.ends_at - timedelta(days=59))
    assert certificates.inspect()[-1].ends_at > server.ends_at
    authority = certificates.inspect()[0]
    with pytest.raises(Refused, match="the authority"):
        certificates.make(["another"], authority.ends_at - timedelta(days=30))


@pytest.mark.parametrize("damaged", ["server.pem", "server.key"])
def test_a_certificate_that_its_key_does_not_fit_is_made_anew(
    cli: Cli, certificates: Certificates, damaged: str
) -> None:
    cli("tls", "init", "--host", "manager.example.com")
    path = certificates.folder / damaged
    before = path.read_text()
    cli("tls", "init", "--renew")
    path.write_text(before)  # as one that is stopped between the two leaves them
    for told in (certificate_check(cli)["remedy"], cli("serve", "--port", "0").stderr, cli("tls", "show").stderr):
        assert "skyctl tls init --renew" in told
    assert cli("tls", "init").returncode == 0
    assert certificate_check(cli)["state"] == "ok"
    path.write_text(before)
    assert certificates.renew_if_due(NOW)
    assert not certificates.renew_if_due(NOW)
    assert "manager.example.com" in certificates.inspect()[-1].names

    path.write_text("damaged")
    assert cli("tls", "init", "--renew", "--host", "manager.example.com").returncode == 0
    assert "manager.example.com" in certificates.inspect()[-1].names


def test_serve_uses_it_by_itself_and_shows_a_renewed_one_without_a_restart(
    cli: Cli, serve: Serve, certificates: Certificates
) -> None:
    cli("tls", "init")
    url, process = serve("--host", "0.0.0.0", "--processes", "2")
    assert url.startswith("https://")
    url = url.replace("0.0.0.0", "127.0.0.1")
    first = ask(url, certificates.authority)
    cli("tls", "init", "--renew")
    eventually(lambda: all(ask(url, certificates.authority) != first for _ in range(8)))
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{url}/healthz", timeout=PATIENCE_SECONDS)
    assert process.stop() == 0


def test_serve_renews_one_that_is_about_to_end_or_has_ended(
    serve: Serve, certificates: Certificates, connection: psycopg.Connection
) -> None:
    certificates.folder.parent.mkdir()
    certificates.make(["localhost", "127.0.0.1"], NOW - timedelta(days=400))
    before = certificates.inspect()[-1]
    url, process = serve()
    process.until("action=certificate_loaded")
    ask(url, certificates.authority)
    after = certificates.inspect()[-1]
    assert after.ends_at > before.ends_at
    assert after.names == before.names
    told = connection.execute(
        "SELECT actor, details ->> 'fingerprint' FROM worker_events WHERE kind = 'certificate_made'"
    )
    assert told.fetchall() == [("serve", after.fingerprint)]


def test_a_handshake_that_does_not_begin_ends_before_a_request_that_does_not(
    cli: Cli, serve: Serve, certificates: Certificates
) -> None:
    """Until its end it takes an open file, and is no connection of HTTP that is counted."""
    assert cli("tls", "init", "--host", "127.0.0.1").returncode == 0
    url = httpx.URL(serve("--host", "127.0.0.1")[0])
    address = (url.host, url.port or 443)
    with socket.create_connection(address, PATIENCE_SECONDS) as silent, ExitStack() as stack:
        context = trusting(certificates.authority)
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # later ones send a ticket after the handshake
        raw = stack.enter_context(socket.create_connection(address, PATIENCE_SECONDS))
        idle = stack.enter_context(context.wrap_socket(raw, server_hostname=url.host))
        ended, _, _ = select.select([silent, idle], [], [], PATIENCE_SECONDS)
        assert ended == [silent]


def test_without_tls_only_this_machine_is_served(cli: Cli, serve: Serve) -> None:
    refused = cli("serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 4
    assert "skyctl tls init" in refused.stderr
    assert "--insecure-http" in refused.stderr
    assert serve("--host", "0.0.0.0", "--insecure-http")[0].startswith("http://0.0.0.0")
    assert serve()[0].startswith("http://127.0.0.1")
    cli("tls", "init")
    assert serve("--insecure-http")[0].startswith("http://"), "for a proxy in front"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    agents: list[Agent] = []

    def launch(**config: object) -> Agent:
        path = tmp_path / f"agent-{len(agents)}" / "config.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"dockerSocket": "/nowhere", **config}))
        path.chmod(0o600)
        agents.append(Agent(agent_command("--config", str(path)), agent_environ()))
        return agents[-1]

    yield launch
    for one in agents:
        one.clean_up()


def test_an_agent_trusts_our_authority_and_no_other(
    cli: Cli, serve: Serve, certificates: Certificates, context: Context, agent: Callable[..., Agent], tmp_path: Path
) -> None:
    cli("tls", "init")
    url, _ = serve()
    token = invitations.invite(context, TESTS).token
    agent(apiUrl=url, authToken=token, caFile=str(certificates.authority)).says("action=accepted")
    other = Certificates(tmp_path / "other")
    other.folder.parent.mkdir()
    other.make(["127.0.0.1"], NOW)
    [line] = agent(apiUrl=url, authToken=token, caFile=str(other.authority)).says("action=manager_unreachable")
    assert "CERTIFICATE_VERIFY_FAILED" in line


def test_the_script_carries_the_authority_where_the_certificate_is_ours(cli: Cli, certificates: Certificates) -> None:
    cli("tls", "init", "--host", "manager.example.com")
    authority = certificates.authority.read_text()
    ours = cli("workers", "install-script", "--api-url", "https://manager.example.com:8642").stdout
    assert authority.splitlines()[1] in ours
    assert "/etc/skypanel-worker/ca.pem" in ours
    assert certificates.authority_key.read_text().splitlines()[1] not in ours
    proxy = cli("workers", "install-script", "--api-url", "https://panel.example.com").stdout
    assert authority.splitlines()[1] not in proxy, "who answers there has another certificate"


def certificate_check(cli: Cli, **more: str) -> dict[str, str]:
    checks = json.loads(cli("doctor", "-o", "json", **more).stdout)["checks"]
    found: dict[str, str] = next(check for check in checks if check["name"] == "certificate")
    return found


def test_the_doctor_looks_at_it(cli: Cli, serve: Serve, certificates: Certificates) -> None:
    assert certificate_check(cli)["state"] == "ok"
    plain = certificate_check(cli, SKYCTL_API_URL="http://manager.example.com")
    assert (plain["state"], plain["remedy"]) == ("warning", "skyctl tls init")
    cli("tls", "init")
    assert certificate_check(cli)["state"] == "ok"
    url, _ = serve()
    checks = json.loads(cli("doctor", "-o", "json", SKYCTL_API_URL=url).stdout)["checks"]
    assert next(check for check in checks if check["name"] == "api")["state"] == "ok", "asked with our authority"
    for days, state, words in ((360, "warning", "server ends in"), (400, "failed", "server ended")):
        shutil.rmtree(certificates.folder)
        certificates.make(["localhost"], NOW - timedelta(days=days))
        found = certificate_check(cli)
        assert (found["state"], words in found["found"]) == (state, True)
        assert "skyctl tls init --renew" in found["remedy"]
    certificates.server.write_text("damaged")
    assert certificate_check(cli)["state"] == "failed"
    broken = cli("tls", "show")
    assert broken.returncode == 1
    assert "it is no certificate" in broken.stderr
