"""HTTPS with a certificate authority of one's own."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.peers import Manager
from tests.agent.process import Agent
from tests.support.helpers import need

Start = Callable[..., Agent]
EXTENSIONS = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `ca.pem`, and a certificate for 127.0.0.1 that it signed, `server.pem` with `server.key`."""
    openssl, folder = need("openssl"), tmp_path_factory.mktemp("tls")
    (folder / "server.ext").write_text(EXTENSIONS)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    ca = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
    for command in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Test CA"],
        ["req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=manager"],
        ["x509", "-req", "-in", "server.csr", *ca, "-extfile", "server.ext", "-out", "server.pem"],
    ):
        subprocess.run([openssl, *command], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def tls_manager(certificates: Path) -> Iterator[Manager]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    manager = Manager(tls=context)
    yield manager
    manager.end()


def test_a_manager_that_the_ca_vouches_for_is_trusted(tls_manager: Manager, start: Start, certificates: Path) -> None:
    start(apiUrl=tls_manager.url, caFile=str(certificates / "ca.pem"))
    tls_manager.heartbeats(2)


def test_another_authority_is_trusted_once_the_file_is_its(
    tls_manager: Manager, start: Start, certificates: Path, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    command = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "other.key"]
    command += ["-out", "ca.pem", "-days", "2", "-subj", "/CN=Former CA"]
    subprocess.run([need("openssl"), *command], cwd=tmp_path, check=True, capture_output=True)
    agent = start(apiUrl=tls_manager.url, caFile=str(file))
    assert "CERTIFICATE_VERIFY_FAILED" in agent.says("action=manager_unreachable")[0]
    file.write_text("half of it")
    assert f"{file} cannot be used" in agent.says("action=manager_unreachable", count=2)[1]
    file.write_bytes((certificates / "ca.pem").read_bytes())
    tls_manager.heartbeats(2)
    agent.says("action=certificates_read_again")
    agent.says("action=accepted")


def test_a_manager_that_nobody_vouches_for_is_told_nothing(tls_manager: Manager, start: Start) -> None:
    agent = start("--verbose", apiUrl=tls_manager.url)
    assert "CERTIFICATE_VERIFY_FAILED" in agent.says("action=manager_unreachable", count=2)[1]
    assert tls_manager.requests.all() == []


def test_insecure_does_not_mean_unverified(tls_manager: Manager, start: Start) -> None:
    agent = start(apiUrl=tls_manager.url, insecure=True)
    agent.says("action=manager_unreachable")
    assert tls_manager.requests.all() == []


def test_the_certificate_must_be_for_the_name_that_was_asked(
    tls_manager: Manager, start: Start, certificates: Path
) -> None:
    agent = start(apiUrl=tls_manager.url.replace("127.0.0.1", "localhost"), caFile=str(certificates / "ca.pem"))
    assert "CERTIFICATE_VERIFY_FAILED" in agent.says("action=manager_unreachable")[0]
    assert tls_manager.requests.all() == []
