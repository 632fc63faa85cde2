"""All commands: where each is and what it does in a sentence, so that none is loaded before somebody types it."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import typer

from skyctl.cli import examples
from skyctl.cli.grammar import accept, name_values

Prepare = Callable[[Any, str], None]


class Place(NamedTuple):
    """A command: the module and the function that it is, what it does; or a group: the module and its app, and those of
    its commands that are in other modules."""

    module: str
    name: str
    summary: str = ""
    below: Mapping[str, "Place"] = {}


COMMANDS: Mapping[str, Place] = {
    "up": Place(
        "up", "up", "Run everything in the foreground: database, API, monitor, and this machine as the first worker."
    ),
    "serve": Place("serve", "serve", "Run the HTTP API that hosts report to."),
    "monitor": Place(
        "monitor",
        "monitor",
        "Find workers that went silent, ran out of room, or came back, and tell people; SIGTERM ends it.",
    ),
    "events": Place(
        "events",
        "events",
        "Show the log of everything that happened: the last events, or those since a time or a number.",
    ),
    "doctor": Place("doctor", "doctor", "Look at everything that has to work, and say what to do about what does not."),
    "db": Place("db", "app", "The database: set it up, check it."),
    "tls": Place("tls", "app", "The certificate by which hosts know this manager."),
    "systemd": Place("systemd", "app", "The services of this host: serve and monitor under systemd."),
    "workers": Place(
        "workers",
        "app",
        "Hosts of the cluster: invite, list, look at, drain, remove.",
        {
            "drain": Place("drains", "drain"),
            "undrain": Place("drains", "undrain"),
            "cordon": Place("cordons", "cordon"),
            "uncordon": Place("cordons", "uncordon"),
            "remove": Place("drains", "remove"),
            "rotate-token": Place("tokens", "rotate_token"),
            "revoke": Place("tokens", "revoke"),
            "upgrade": Place("upgrades", "upgrade"),
            "bundle": Place("bundles", "bundle"),
        },
    ),
    "secrets": Place("tokens", "secrets", "The secret that signs tokens."),
    "tokens": Place("api_tokens", "app", "Tokens of the API, for scripts and for other desks."),
    "services": Place(
        "services",
        "app",
        "Services: deploy, list, look at, adopt, remove.",
        {
            "adopt": Place("adopt", "adopt"),
            **{name: Place("running", name) for name in ("scale", "restart", "rollback")},
            "logs": Place("logs", "logs"),
        },
    ),
    "policy": Place("policy", "app", "What each organization wants when a worker fails."),
    "cluster": Place("cluster", "app", "The cluster as a whole."),
    "alerts": Place("alerts", "app", "What people were told, and by which channels."),
    "migrations": Place("migrations", "app", "Containers on their way from one worker to another."),
    "login": Place(
        "login",
        "login",
        "Have commands ask a manager elsewhere: keep its address and your token as a context, the current one.",
    ),
    "logout": Place("login", "logout", "Forget the token of a context."),
    "context": Place("contexts", "app", "Managers elsewhere that you have logged in to."),
    "version": Place(
        "version",
        "version",
        "Print the versions of this program and of the manager that it asks, and which way it takes.",
    ),
    "help": Place(
        "help_pages",
        "show_help",
        "Show the help of a command, as its --help does; of `settings` what each of them means.",
    ),
}


class Commands(dict[str, Any]):
    """The commands of a group by their names. Each is made when it is first asked for."""

    def __init__(self, makers: Mapping[str, Callable[[], Any]], summaries: Mapping[str, str]) -> None:
        super().__init__(dict.fromkeys(makers))
        self._makers, self._summaries = dict(makers), summaries

    def __getitem__(self, name: str) -> Any:
        if name in self._makers:
            self[name] = self._makers.pop(name)()
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a command; the default where there is none."""
        return self[name] if name in self else default  # noqa: SIM401 - it would ask itself

    def values(self) -> Any:
        """Return all commands."""
        return [self[name] for name in self]

    def items(self) -> Any:
        """Return all commands with their names."""
        return [(name, self[name]) for name in self]

    def summary(self, name: str) -> str:
        """Return what a command does in a sentence, which may be had without making it."""
        return self._summaries.get(name) or str(self[name].get_short_help_str(_WHOLE))


_WHOLE = 1000  # characters of a sentence, which the library else ends at the width of a line


def prepare(program: Any) -> None:
    """Give a program, which has none, all commands; each takes the program's own options, too."""

    def finish(command: Any, path: str) -> None:
        name_values(command)
        examples.show(command, path)
        accept(command, program)

    name_values(program)
    examples.show(program, "")
    program.commands = _commands(COMMANDS, {}, "", finish)


def _commands(places: Mapping[str, Place], own: Mapping[str, Any], above: str, finish: Prepare) -> Commands:
    """Return commands that are to be made, of their places, after those that are made already."""

    def finished(name: str, command: Any) -> Any:
        finish(command, f"{above} {name}".strip())
        return command

    makers: dict[str, Callable[[], Any]] = {name: partial(finished, name, command) for name, command in own.items()}
    makers |= {name: partial(_made, place, name, above, finish) for name, place in places.items()}
    return Commands(makers, {name: place.summary for name, place in places.items() if place.summary})


def _made(place: Place, name: str, above: str, finish: Prepare) -> Any:
    """Load a command, or a group with its own."""
    found, path = getattr(import_module(f"skyctl.cli.{place.module}"), place.name), f"{above} {name}".strip()
    if isinstance(found, typer.Typer):
        group = typer.main.get_group(found)
        group.name, group.help = name, place.summary
        group.commands = _commands(place.below, group.commands, path, finish)
        finish(group, path)
        return group
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(found)
    command = typer.main.get_command(alone)
    finish(command, path)
    return command
