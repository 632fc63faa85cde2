"""After a switchover everybody goes to the server that takes writes: by all of the URL's hosts, or by the address that
was moved."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from skyctl.operations.admin import schema
from skyctl.operations.agents import invitations
from tests.conftest import Cli, Process, make_context
from tests.support.helpers import LOAD, PATIENCE_SECONDS, TESTS, bearer, eventually, get
from tests.support.postgres_servers import MovingAddress, Pair, servers

Start = Callable[..., Process]
Serve = Callable[..., tuple[str, Process]]

DATABASE = "skyctl"
LEADS = "SELECT holder FROM monitor_leases WHERE expires_at > now()"
ADDED = (
    "INSERT INTO container_workers (name, hostname, ip_address, auth_token_hash, last_heartbeat_at) "
    "VALUES ('w', 'w', '10.0.0.1', 'x', now()); NOTIFY skyctl_news"
)


@pytest.fixture
def pair(open_folder: Path) -> Iterator[Pair]:
    with servers(open_folder / f"pair-{uuid4().hex[:8]}", "one", "two") as (one, two):
        one.make()
        one.start()
        one.ask(f"CREATE DATABASE {DATABASE}")
        context = make_context(one.url(DATABASE))
        schema.initialize(context)
        context.db.close()
        two.copy(one)
        two.start()
        yield Pair(one, two)


@pytest.fixture
def address(pair: Pair) -> Iterator[MovingAddress]:
    moving = MovingAddress(pair.primary.port)
    yield moving
    moving.close()


def caught_up(pair: Pair) -> bool:
    at = pair.primary.ask("SELECT pg_current_wal_lsn()")[0][0]
    return pair.standby.ask(f"SELECT pg_last_wal_replay_lsn() >= '{at}'")[0] == (True,)


class Beating:
    """A worker that beats when it is told to."""

    def __init__(self, url: str, database: str) -> None:
        context = make_context(database)
        invitation = invitations.invite(context, TESTS, "w1")
        context.db.close()
        self._path = f"{url}/api/workers/{invitation.worker_id}/heartbeat"
        self._token = invitation.token

    def status(self) -> int:
        return httpx.post(self._path, json=LOAD, headers=bearer(self._token), timeout=PATIENCE_SECONDS).status_code


@pytest.mark.parametrize("form", ["127.0.0.1:{},127.0.0.1:{}/{}", "/{2}?host=127.0.0.1:{0}&host=127.0.0.1:{1}"])
def test_serve_goes_to_the_new_primary_of_its_hosts(serve: Serve, pair: Pair, form: str) -> None:
    """Though the first of them answers, too, as a standby."""
    every = "postgresql://postgres@" + form.format(pair.primary.port, pair.standby.port, DATABASE)
    url, _ = serve(SKYCTL_DATABASE_URL=every)
    worker = Beating(url, every)
    assert worker.status() == 200
    eventually(lambda: caught_up(pair))
    pair.primary.stop()
    pair.standby.promote()
    pair.primary.demote(pair.standby)
    eventually(lambda: worker.status() == 200)
    assert pair.standby.ask("SELECT count(last_heartbeat_at) FROM container_workers", DATABASE) == [(1,)]
    eventually(lambda: get(f"{url}/readyz").status_code == 200)


def test_everybody_leaves_a_server_that_takes_no_writes(
    start: Start, serve: Serve, pair: Pair, address: MovingAddress
) -> None:
    """Which goes on, so that no connection to it is lost by itself: heartbeats, the pool, who listens."""
    by_address = f"postgresql://postgres@127.0.0.1:{address.port}/{DATABASE}"
    url, _ = serve(SKYCTL_DATABASE_URL=by_address)
    monitor = start("monitor", "--interval", "3600", SKYCTL_DATABASE_URL=by_address)
    worker = Beating(url, by_address)
    monitor.until("action=leads")
    assert worker.status() == 200
    eventually(lambda: caught_up(pair))
    pair.primary.take_no_writes()
    assert worker.status() == 503
    assert get(f"{url}/readyz").status_code == 503
    pair.standby.promote()
    address.leads_to = pair.standby.port
    eventually(lambda: worker.status() == 200)
    eventually(lambda: get(f"{url}/readyz").status_code == 200)
    monitor.until("action=leads")
    pair.standby.ask(ADDED, DATABASE)
    assert "to=active" in monitor.until("name='w'")
    theirs = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'skyctl' AND datname = '{DATABASE}'"
    eventually(lambda: pair.primary.ask(theirs) == [(0,)])


def test_no_sign_of_life_where_no_heartbeat_can_be_written(serve: Serve, pair: Pair) -> None:
    url, process = serve(SKYCTL_DATABASE_URL=pair.primary.url(DATABASE))
    eventually(lambda: get(f"{url}/readyz").status_code == 200)
    pair.primary.take_no_writes()
    assert "takes no writes" in process.until("action=presence_not_written")
    eventually(lambda: get(f"{url}/readyz").status_code == 503)
    pair.primary.take_no_writes(refused=False)
    process.until("action=presence_written")
    eventually(lambda: get(f"{url}/readyz").status_code == 200)


def test_a_standby_is_named_and_read_by_whoever_says_so(cli: Cli, pair: Pair) -> None:
    standby = pair.standby.url(DATABASE)
    refused = cli("workers", "list", SKYCTL_DATABASE_URL=standby)
    assert refused.returncode == 5
    error, hint = refused.stderr.splitlines()
    assert "takes no writes" in error
    assert "target_session_attrs=any" in hint
    reading = {"SKYCTL_DATABASE_URL": f"{standby}?target_session_attrs=any"}
    assert cli("workers", "list", **reading).returncode == 0
    written = cli("migrations", "pause", **reading)
    assert (written.returncode, "takes no writes" in written.stderr) == (5, True)
    found = cli("doctor", **reading).stdout
    assert "takes no writes" in found


def test_hosts_of_a_url_are_shown_without_its_password() -> None:
    shown = make_context("postgresql://u:geheim@one:5432,[::1]:5433,three/x").db
    assert shown.address == "postgresql://u:***@/x?host=one%2C%3A%3A1%2Cthree&port=5432%2C5433%2C"
    assert shown.way.hosts == ["one", "::1", "three"]
