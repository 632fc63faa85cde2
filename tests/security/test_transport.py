"""The ways to the database and to the engine: what is not verified is said by the doctor."""

import pytest

from skyctl.operations.admin import doctor_transport
from skyctl.rules import transport
from skyctl.store.db import Database
from tests.conftest import Cli

pytestmark = pytest.mark.in_process

AWAY = "postgresql://u:p@db.example/x"


@pytest.mark.parametrize(
    ("url", "state"),
    [
        (AWAY, "warning"),
        (f"{AWAY}?sslmode=disable", "warning"),
        (f"{AWAY}?sslmode=allow", "warning"),
        (f"{AWAY}?sslmode=prefer", "warning"),
        (f"{AWAY}?sslmode=require", "warning"),
        (f"{AWAY}?sslmode=require&sslrootcert=/ca.pem", "ok"),
        (f"{AWAY}?sslmode=verify-ca", "ok"),
        (f"{AWAY}?sslmode=verify-full", "ok"),
        (f"{AWAY}?sslrootcert=system", "ok"),
        ("postgresql://u@127.0.0.1/x", "ok"),
        ("postgresql://u@[::1]/x", "ok"),
        ("postgresql://u@localhost/x", "ok"),
        ("postgresql://u@/x?host=%2Frun%2Fpostgresql", "ok"),
        ("postgresql:///x", "ok"),
        ("postgresql://u@/x?host=%2Frun,db.example", "warning"),
        ("postgresql://u@/x?hostaddr=192.0.2.1", "warning"),
    ],
)
def test_a_database_elsewhere_that_is_not_verified(url: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PGHOST", "PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(variable, raising=False)
    check = doctor_transport.database(Database(url))
    assert check.state == state
    assert ("verify-full" in check.remedy) is (state == "warning")


def test_the_drivers_own_variables_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert doctor_transport.database(Database(AWAY)).state == "ok"
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGSSLMODE", "require")
    assert doctor_transport.database(Database("postgresql:///x")).state == "warning"


@pytest.mark.parametrize(
    ("address", "verified", "words"),
    [
        (None, False, ""),
        ("unix:///var/run/docker.sock", False, ""),
        ("ssh://root@manager", False, ""),
        ("tcp://manager:2376", True, ""),
        ("tcp://manager:2375", False, "whoever reaches it"),
        ("tcp://manager:2376", False, "whoever reaches it"),
        ("http://manager:2375", False, "whoever reaches it"),
        ("manager:2375", False, "whoever reaches it"),
        ("tcp://127.0.0.1:2375", False, "any user of this machine"),
        ("tcp://localhost:2375", False, "any user of this machine"),
        ("127.0.0.1:2375", False, "any user of this machine"),
        ("tcp://u:Gehe1m/@x@manager:2375", False, "whoever reaches it"),
    ],
)
def test_an_engine_that_others_may_command(address: str | None, verified: bool, words: str) -> None:
    risk = transport.engine_risk(address, verified=verified)
    assert words in risk
    assert bool(words) is bool(risk)
    assert "Gehe1m" not in risk


def test_the_doctor_says_both(cli: Cli) -> None:
    away = {"DOCKER_HOST": "tcp://127.0.0.1:1", "SKYCTL_API_URL": "http://127.0.0.1:9"}
    shown = " ".join(cli("doctor", **away).stdout.split())
    assert "docker transport tcp://127.0.0.1:1 is plain TCP" in shown
    assert "DOCKER_TLS_VERIFY" in shown
    assert "docker transport its socket, or verified" in " ".join(
        cli("doctor", **away, DOCKER_TLS_VERIFY="1").stdout.split()
    )
