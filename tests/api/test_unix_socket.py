"""The unix socket of `serve`: which users of the machine are administrators by it, and whose place it takes."""

import os
import pwd
import select
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from skyctl import units
from skyctl.domain.api_tokens import Role
from skyctl.domain.errors import AnsweredError, Forbidden, ManagerUnavailable, SkyctlError, Unauthorized
from skyctl.host import admin_socket, local_users
from skyctl.host.api_address import Address
from skyctl.host.api_client import ApiClient
from skyctl.host.postgres import EmbeddedPostgres
from skyctl.operations.admin import api_tokens, workers
from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from skyctl.units import data_folders
from tests.api.test_processes import servers
from tests.conftest import Cli, Process
from tests.support.helpers import LOAD, PATIENCE_SECONDS, TESTS, add_worker, eventually, get, ready

Serve = Callable[..., tuple[str, Process]]
ME = pwd.getpwuid(os.geteuid()).pw_name
GROUP, MEMBER, PRIMARY, STRANGER = 61_010, 61_011, 61_012, 61_013  # a group and users that nobody has
ACCOUNTS = f"""\
ada:x:{MEMBER}:{MEMBER}::/:/bin/false
bob:x:{PRIMARY}:{GROUP}::/:/bin/false
eve:x:{STRANGER}:{STRANGER}::/:/bin/false
"""
# A serve that has other lists of users and groups than the host.
SCENE = 'mount --bind "$1" /etc/passwd; mount --bind "$2" /etc/group; shift 2; exec "$@"'
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has mount namespaces and becomes other users")


@pytest.fixture
def where(environment: dict[str, str], open_folder: Path) -> Path:
    """The path of the socket, in a data folder that every user may enter."""
    environment["SKYCTL_DATA_DIR"] = str(open_folder / "data")
    return admin_socket.path(open_folder / "data")


@contextmanager
def asking(where: Path, token: str = "") -> Iterator[ApiClient]:
    with closing(ApiClient(Address("http://localhost", token, socket_path=where))) as client:
        yield client


@contextmanager
def acting_as(user: int, *groups: int) -> Iterator[None]:
    """Make what is connected meanwhile connections of another user."""
    before = os.getgroups()
    os.setgroups(groups)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setgroups(before)


def may_list(where: Path, user: int, *groups: int) -> bool:
    """Whether this user is let in; whoever is not is told why and what to do."""
    with acting_as(user, *groups), asking(where) as client:
        try:
            client.ask("GET", "/api/workers")
        except AnsweredError as error:
            assert (error.code, error.http_status) == (Forbidden.code, 403)
            assert "and the group skyctl are" in error.message
            assert "usermod --append --groups skyctl " in error.hint
            return False
    return True


def lists_workers(where: Path) -> bool:
    with asking(where) as client:
        return bool(client.ask("GET", "/api/workers")["success"])


def actors(connection: psycopg.Connection, kind: str) -> list[Any]:
    return connection.execute("SELECT actor FROM worker_events WHERE kind = %s ORDER BY seq", [kind]).fetchall()


class Lists:
    """Lists of users and groups of our own, and a serve that has them."""

    def __init__(self, folder: Path, environment: dict[str, str], where: Path) -> None:
        self.passwd, self.group = folder / "passwd", folder / "group"
        self.passwd.write_text(Path("/etc/passwd").read_text() + ACCOUNTS)
        self.others = "".join(
            line for line in Path("/etc/group").read_text().splitlines(True) if not line.startswith("skyctl:")
        )
        self._environment, self._where = environment, where
        self.admit("ada")

    def admit(self, *members: str) -> None:
        """Make these the members of the group, whose number some have as their own as well."""
        self.group.write_text(f"{self.others}skyctl:x:{GROUP}:{','.join(members)}\n")

    def forget_the_group(self) -> None:
        self.group.write_text(self.others)

    @contextmanager
    def serve(self, *before: str) -> Iterator[Process]:
        command = [*before, sys.executable, "-m", "skyctl", "serve", "--port", "0"]
        scene = ["unshare", "--mount", "sh", "-ec", SCENE, "sh", str(self.passwd), str(self.group)]
        process = Process([*scene, *command], self._environment)
        try:
            process.until(f"listening on {self._where}")
            yield process
        finally:
            assert process.stop() == 0
            process.popen.stderr.close()  # type: ignore[union-attr]


@pytest.fixture
def lists(tmp_path: Path, environment: dict[str, str], where: Path) -> Lists:
    return Lists(tmp_path, environment, where)


def test_its_own_user_is_an_administrator_by_name(serve: Serve, where: Path, connection: psycopg.Connection) -> None:
    worker_id = add_worker(connection, name="w1")
    serve()
    with asking(where) as client:
        assert [found["name"] for found in client.ask("GET", "/api/workers")["data"]] == ["w1"]
        client.ask("POST", f"/api/workers/{worker_id}/drain")
        client.ask("POST", "/api/tokens", body={"name": "made", "role": "viewer", "ttl": "1d"})
    assert actors(connection, "drain_requested") == [(f"unix:{ME}",)]
    assert actors(connection, "api_token_made") == [(f"unix:{ME}",)]
    logged = connection.execute("SELECT DISTINCT metadata ->> 'actor', ip_address FROM activity_logs").fetchall()
    assert logged == [(f"unix:{ME}", "local")]


@as_root
def test_root_and_members_of_the_group_are_let_in_and_others_are_not(
    lists: Lists, where: Path, connection: psycopg.Connection
) -> None:
    worker_id = add_worker(connection)
    with lists.serve():
        assert (where.stat().st_gid, stat.S_IMODE(where.stat().st_mode)) == (GROUP, 0o660)
        assert may_list(where, 0)
        assert may_list(where, MEMBER, GROUP)
        assert may_list(where, PRIMARY, GROUP)
        with acting_as(MEMBER, GROUP), asking(where) as client:
            client.ask("POST", f"/api/workers/{worker_id}/cordon")
        with pytest.raises(ManagerUnavailable, match="Permission denied"):
            may_list(where, STRANGER)
        where.chmod(0o666)
        assert not may_list(where, STRANGER)
        assert not may_list(where, STRANGER + 1000), "who has no name either"
    assert actors(connection, "cordoned") == [("unix:ada",)]


@as_root
def test_who_is_a_member_is_looked_up_each_time(lists: Lists, where: Path, connection: psycopg.Connection) -> None:
    with lists.serve(), asking(where) as client, asking(where) as following, ExitStack() as stack:
        with acting_as(MEMBER, GROUP):  # as their connections stay
            news = stack.enter_context(following.listening("/api/events/stream"))
            client.ask("GET", "/api/workers")
        lists.admit()
        with pytest.raises(SkyctlError, match="the user ada is no administrator"):
            client.ask("GET", "/api/workers")
        add_worker(connection)
        connection.execute("DELETE FROM container_workers")
        with pytest.raises(ManagerUnavailable, match="has ended the stream"):
            while select.select([news], [], [], PATIENCE_SECONDS)[0]:
                news.drain()


def test_a_database_that_is_away_is_as_a_manager_that_does_not_answer(
    serve: Serve, where: Path, connection: psycopg.Connection, postgres: EmbeddedPostgres
) -> None:
    serve()
    with asking(where) as client, psycopg.connect(postgres.url, autocommit=True) as server:
        client.ask("GET", "/api/workers")
        name = connection.info.dbname
        connection.close()
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        with pytest.raises(ManagerUnavailable) as caught:
            client.ask("GET", "/api/workers")
        assert (caught.value.code, caught.value.exit_code) == ("DATABASE_UNAVAILABLE", 5)
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        eventually(lambda: client.ask("GET", "/readyz"))


@as_root
@pytest.mark.parametrize("lacks", ["the group", "the right to give it away"])
def test_without_a_group_it_is_its_own_users_alone(lists: Lists, where: Path, lacks: str) -> None:
    unable = ["setpriv", "--bounding-set=-chown"] if lacks == "the right to give it away" else []
    if not unable:
        lists.forget_the_group()
    with lists.serve(*unable):
        assert (where.stat().st_gid, stat.S_IMODE(where.stat().st_mode)) == (0, 0o600)
        assert may_list(where, 0)
        with pytest.raises(ManagerUnavailable, match="Permission denied"):
            may_list(where, MEMBER, GROUP)


def test_whoever_has_no_other_group_has_it_alone(open_folder: Path) -> None:
    """Where this process is root, as another user."""
    with ExitStack() as stack:
        data = open_folder / "theirs"
        data.mkdir()
        if os.geteuid() == 0:
            os.chown(data, STRANGER, STRANGER)
            stack.enter_context(acting_as(STRANGER))
        listener = stack.enter_context(admin_socket.listening(data))
        assert listener
        made = admin_socket.path(data).stat()
        assert (made.st_uid, stat.S_IMODE(made.st_mode)) == (os.geteuid(), 0o600)


def test_a_token_is_judged_and_not_who_shows_it(
    serve: Serve, where: Path, context: Context, connection: psycopg.Connection
) -> None:
    cordon = f"/api/workers/{add_worker(connection)}/cordon"
    serve()
    _, viewer = api_tokens.create(context, TESTS, "viewer", Role.VIEWER, None)
    _, operator = api_tokens.create(context, TESTS, "operator", Role.OPERATOR, None)
    with asking(where, viewer) as client:
        client.ask("GET", "/api/workers")
        with pytest.raises(SkyctlError, match="the token viewer is of the role viewer"):
            client.ask("POST", cordon)
    with asking(where, operator) as client:
        client.ask("POST", cordon)
    with asking(where, "skyctl_unknown") as client, pytest.raises(SkyctlError, match="not known here") as refused:
        client.ask("GET", "/api/workers")
    assert refused.value.code == Unauthorized.code
    assert actors(connection, "cordoned") == [("token:operator",)]
    transport = httpx.HTTPTransport(uds=str(where))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=PATIENCE_SECONDS) as client:
        for shown in ("", "Bearer", "Basic cm9vdDpyb290"):
            assert client.get("/api/workers", headers={"Authorization": shown}).status_code == 401
        assert client.get("/api/workers").status_code == 200


def test_workers_report_by_it_with_their_token_alone(serve: Serve, where: Path, context: Context) -> None:
    serve()
    invitation = invitations.invite(context, TESTS)
    path = f"/api/workers/{invitation.worker_id}/heartbeat"
    with asking(where, invitation.token) as client:
        client.ask("POST", path, body=LOAD)
        client.ask("POST", path, {"odd": "1"}, LOAD)
    with asking(where) as client:
        for url in (path, f"{path}?odd=1", "/api/workers/register"):
            with pytest.raises(SkyctlError, match="there is no token") as refused:
                client.ask("POST", url, body=LOAD)
            assert refused.value.code == Unauthorized.code
    assert workers.get(context, invitation.worker_id).last_heartbeat_at


def test_what_a_killed_one_has_left_is_replaced(serve: Serve, where: Path) -> None:
    _, killed = serve()
    killed.popen.kill()
    killed.popen.wait()
    left = where.lstat().st_ino
    url, process = serve()
    assert ready(url)
    assert lists_workers(where)
    assert where.lstat().st_ino != left
    assert process.stop() == 0
    assert not where.exists()
    assert "action=no_socket" not in "".join(process.seen)


def test_that_of_a_living_one_is_left_to_it(serve: Serve, where: Path) -> None:
    serve()
    living = where.lstat().st_ino
    url, second = serve()
    assert ready(url)
    assert second.stop() == 0
    said = [line for line in second.seen if "action=no_socket" in line]
    assert len(said) == 1
    assert "listens there: this one goes on without a socket" in said[0]
    assert where.lstat().st_ino == living
    assert lists_workers(where)


def test_all_processes_answer_by_it(serve: Serve, where: Path) -> None:
    url, process = serve("--processes", "2")
    eventually(lambda: ready(url) and len(servers(process)) == 2)
    one, other = servers(process)
    for still in (one, other):
        os.kill(still, signal.SIGSTOP)
        try:
            eventually(lambda: lists_workers(where))  # once the other one has started
        finally:
            os.kill(still, signal.SIGCONT)
    assert process.stop() == 0
    assert not where.exists()


def test_it_speaks_plain_http_beside_tls(serve: Serve, where: Path, cli: Cli) -> None:
    assert cli("tls", "init").returncode == 0
    url, _ = serve()
    assert url.startswith("https://")
    assert lists_workers(where)


@pytest.mark.parametrize("why", ["no folder", "no socket", "too long"])
def test_where_there_can_be_none_one_line_says_why(serve: Serve, where: Path, why: str) -> None:
    more: dict[str, str] = {}
    stands = where if why == "no socket" else where.parent
    stands.parent.mkdir(parents=True)
    stands.write_text("in its place")
    if why == "too long":
        more["SKYCTL_DATA_DIR"] = str(where.parent.parent / ("long" * 25))
    url, process = serve(**more)
    assert ready(url)
    assert process.stop() == 0
    said = [line for line in process.seen if "action=no_socket" in line]
    reasons = {"no folder": "Not a directory", "no socket": "is no socket", "too long": "at most 107 bytes"}
    assert len(said) == 1
    assert reasons[why] in said[0]
    assert stands.read_text() == "in its place"


@as_root
def test_root_makes_none_in_the_folder_of_another(serve: Serve, where: Path) -> None:
    where.parent.parent.mkdir()
    os.chown(where.parent.parent, STRANGER, STRANGER)
    url, process = serve()
    assert ready(url)
    assert f"{where.parent} belongs to {STRANGER}: run serve as that user" in "".join(process.seen)
    assert not where.exists()


def test_strangers_of_the_network_take_no_place_of_its_users(environment: dict[str, str], where: Path) -> None:
    command = ["bash", "-c", f"ulimit -n 330; exec {sys.executable} -m skyctl serve --port 0"]
    process = Process(command, environment)
    try:
        url = httpx.URL(process.until("listening on ").split("listening on ")[1].strip())
        process.until("listening on ")
        with ExitStack() as stack:
            early = stack.enter_context(socket.socket(socket.AF_UNIX))
            early.settimeout(PATIENCE_SECONDS)
            early.connect(str(where))
            assert get(url.join("/healthz")).status_code == 200
            for _ in range(400):
                stack.enter_context(socket.create_connection((url.host, url.port or 80), timeout=PATIENCE_SECONDS))
            early.sendall(b"GET /api/workers HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert early.recv(12) == b"HTTP/1.1 200"
            assert lists_workers(where)
    finally:
        assert process.stop() == 0
        process.popen.stderr.close()  # type: ignore[union-attr]


def test_it_is_where_the_unit_has_it_and_whoever_asks_it_sees_is_somebody() -> None:
    unit = units.unit_text("skyctl-serve.service", "skyctl").splitlines()
    assert admin_socket.path(data_folders.SERVE) == Path("/run/skyctl-serve/serve.sock")
    assert {f"Environment=SKYCTL_DATA_DIR={data_folders.SERVE}", "RuntimeDirectory=skyctl-serve"} < set(unit)
    assert "RuntimeDirectoryMode=0750" in unit
    assert not [line for line in unit if line.startswith("PrivateUsers=")]
    assert units.USER == local_users.GROUP
