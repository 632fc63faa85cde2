"""PostgreSQL servers of a test that replicate, are promoted and demoted, and an address that moves between them."""

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from skyctl.host import data_dir
from skyctl.host.postgres_binaries import Programs


def free_port() -> int:
    """A port of this machine that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port


class Server:
    """One server in a folder of its own, on a port of this machine; anybody there may do everything."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        folder.mkdir()
        data_dir.prepare(folder)
        with data_dir.opened(folder) as top:
            self._programs = Programs(top)
            with self._programs.own(top, "server") as home:
                self._home = home.path
        self._data = self._home / "data"

    @property
    def at(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, name: str = "postgres") -> str:
        return f"postgresql://postgres@{self.at}/{name}"

    def make(self) -> None:
        """Make it a server with nothing in it."""
        self._run("initdb", f"--pgdata={self._data}", "--username=postgres", "--auth=trust", "--encoding=UTF8")

    def copy(self, primary: "Server") -> None:
        """Make it a standby of another one."""
        way = f"host=127.0.0.1 port={primary.port} user=postgres"
        self._run("pg_basebackup", f"--pgdata={self._data}", f"--dbname={way}", "--checkpoint=fast", "--write-recovery")

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories='' -c fsync=off"
        log = self._home / "log"
        self._run("pg_ctl", "start", "--wait", f"--pgdata={self._data}", f"--log={log}", f"--options={options}")

    def stop(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "--wait", "--mode=fast", f"--pgdata={self._data}")

    def promote(self) -> None:
        self._run("pg_ctl", "promote", "--wait", f"--pgdata={self._data}")

    def demote(self, primary: "Server") -> None:
        """Start it again as a standby of another one."""
        self.stop()
        with (self._data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = 'host=127.0.0.1 port={primary.port} user=postgres'\n")
        (self._data / "standby.signal").touch()
        self.start()

    def ask(self, statement: str, name: str = "postgres") -> list[tuple[object, ...]]:
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            answer = connection.execute(statement)
            return answer.fetchall() if answer.description else []

    def take_no_writes(self, refused: bool = True) -> None:
        """Refuse writes from now on, as some cluster managers have it before they move the address."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if refused else 'off'}")
            connection.execute("SELECT pg_reload_conf()")

    def _run(self, name: str, *arguments: str) -> None:
        done = self._programs.run(name, *arguments)
        assert done.returncode == 0, done.stdout


@dataclass
class Pair:
    """A primary with our schema in the database `skyctl`, and its standby."""

    primary: Server
    standby: Server


@contextmanager
def servers(folder: Path, *names: str) -> Iterator[list[Server]]:
    """Servers that are stopped at the end, whatever became of them."""
    folder.mkdir()
    made = [Server(folder / name) for name in names]
    try:
        yield made
    finally:
        for server in made:
            server.stop()
        shutil.rmtree(folder)


class MovingAddress:
    """An address that leads to one port and then to another: connections that were made stay where they are."""

    def __init__(self, port: int) -> None:
        self.leads_to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._held: list[socket.socket] = []
        self._carriers: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def close(self) -> None:
        """End it, and every connection by it."""
        _shut(self._listener)
        self._acceptor.join()
        for held in self._held:
            _shut(held)
        for carrier in self._carriers:
            carrier.join()
        for held in (self._listener, *self._held):
            held.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._held.append(near)
                try:
                    far = socket.create_connection(("127.0.0.1", self.leads_to))
                except OSError:
                    _shut(near)
                    continue
                self._held.append(far)
                for ends in ((near, far), (far, near)):
                    self._carriers.append(threading.Thread(target=_carry, args=ends))
                    self._carriers[-1].start()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)
    _shut(source)
    _shut(target)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
