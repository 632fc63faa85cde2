"""What is typed by who comes from kubectl, docker or nomad, and what it is here."""

from collections.abc import Sequence

_WORKERS = ("nodes", "node", "no", "workers", "worker")
_SERVICES = ("services", "service", "svc", "deployments", "deployment", "deploy", "jobs", "job")
_CONTAINERS = ("pods", "pod", "po", "all", "containers")

COMMANDS: dict[str, str] = {
    **{f"get {noun}": "workers list" for noun in _WORKERS},
    **{f"get {noun}": "services list" for noun in _SERVICES},
    **{f"get {noun}": "services list --all" for noun in _CONTAINERS},
    **{f"get {noun}": "events" for noun in ("events", "event", "ev")},
    **{f"get {noun}": "migrations list" for noun in ("migrations", "migration")},
    "get": "workers list",
    **{f"{verb} {noun}": "workers show" for verb in ("describe", "inspect") for noun in _WORKERS},
    **{f"{verb} {noun}": "services show" for verb in ("describe", "inspect") for noun in _SERVICES},
    "describe": "workers show",
    "inspect": "services show",
    **{f"delete {noun}": "workers remove" for noun in _WORKERS},
    **{f"delete {noun}": "services remove" for noun in _SERVICES},
    "delete": "services remove",
    "rm": "services remove",
    **{f"label {noun}": "workers label" for noun in _WORKERS},
    "label": "workers label",
    **{f"top {noun}": "cluster top" for noun in _WORKERS},
    "top": "cluster top",
    **dict.fromkeys(("cluster-info", "info", "stats", "status"), "cluster stats"),
    **{verb: f"workers {verb}" for verb in ("cordon", "uncordon", "drain", "undrain")},
    "logs": "services logs",
    **dict.fromkeys(("ps", "ls", "list"), "services list"),
    **dict.fromkeys(("apply", "create", "run", "deploy"), "services deploy"),
    "scale": "services scale",
    "rollout undo": "services rollback",
    **dict.fromkeys(("rollout", "restart"), "services restart"),
    "rollback": "services rollback",
    "join": "workers install-script",
    **dict.fromkeys(("swarm join-token", "swarm"), "workers install-script"),
    **{
        f"{group} {verb}": f"workers {command}"
        for group in ("node", "nodes", "worker")
        for verb, command in {
            **dict.fromkeys(("ls", "list", "status"), "list"),
            **dict.fromkeys(("inspect", "show", "ps", "describe"), "show"),
            **dict.fromkeys(("rm", "remove", "delete", "purge"), "remove"),
            **dict.fromkeys(("drain", "update"), "drain"),
            "eligibility": "cordon",
        }.items()
    },
    **{
        f"{group} {verb}": f"services {command}"
        for group in ("service", "job", "stack", "container")
        for verb, command in {
            **dict.fromkeys(("ls", "list", "status"), "list"),
            **dict.fromkeys(("inspect", "show", "ps", "describe", "services"), "show"),
            **dict.fromkeys(("rm", "remove", "delete", "stop", "purge"), "remove"),
            **dict.fromkeys(("create", "update", "deploy", "run"), "deploy"),
            **dict.fromkeys(("rollback", "revert"), "rollback"),
            "logs": "logs",
            "scale": "scale",
            "restart": "restart",
        }.items()
    },
    **dict.fromkeys(("node", "nodes", "worker"), "workers list"),
    **dict.fromkeys(("service", "svc", "job", "stack", "container"), "services list"),
    **dict.fromkeys(("migration", "alloc"), "migrations list"),
    "event": "events",
    **dict.fromkeys(("settings", "config", "env"), "help settings"),
    "alert": "alerts list",
    **{
        f"workers {verb}": f"workers {command}"
        for verb, command in {
            **dict.fromkeys(("ls", "get", "status"), "list"),
            **dict.fromkeys(("inspect", "describe", "ps"), "show"),
            **dict.fromkeys(("rm", "delete"), "remove"),
            **dict.fromkeys(("add", "join", "create", "invite"), "install-script"),
        }.items()
    },
    "workers top": "cluster top",
    **{
        f"services {verb}": f"services {command}"
        for verb, command in {
            **dict.fromkeys(("ls", "get", "ps"), "list"),
            **dict.fromkeys(("inspect", "describe"), "show"),
            **dict.fromkeys(("rm", "delete"), "remove"),
            **dict.fromkeys(("create", "update", "apply", "run"), "deploy"),
        }.items()
    },
    **{f"migrations {verb}": "migrations list" for verb in ("ls", "get")},
    **{f"alerts {verb}": "alerts list" for verb in ("ls", "get")},
}
"""By the words of another tool, ours."""


def ours(words: Sequence[str]) -> str | None:
    """Return our command for the first words of a line that is none of ours; None where there is none."""
    plain = [word for word in words if not word.startswith("-")]
    known = (COMMANDS.get(" ".join(plain[:count])) for count in (2, 1))
    return next((f"skyctl {found}" for found in known if found), None)
