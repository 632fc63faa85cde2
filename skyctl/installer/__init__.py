"""The script by which a host becomes a worker: parts of shell, filled with one worker's values and the agent itself."""

import base64
import gzip
import hashlib
import io
import json
import shlex
import string
import tarfile
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from skyctl.domain.engine import SwarmJoin
from skyctl.domain.text import printable

PARTS = (
    "head",
    "paths",
    "messages",
    "arguments",
    "configs",
    "panel",
    "host",
    "worker",
    "asking",
    "manager",
    "packages",
    "locks",
    "transactions",
    "bundle",
    "identity",
    "agent",
    "files",
    "swarm",
    "start",
    "main",
)
UNINSTALLER_PARTS = ("paths", "messages", "configs", "panel", "locks", "uninstall")
CA_FILE = "/etc/skypanel-worker/ca.pem"


@dataclass(frozen=True, slots=True)
class InstallScript:
    """The values by which one worker's script differs from another's. `insecure` lets its agent send the token over
    plain HTTP.

    `ca_certificate`: the PEM certificates that alone may vouch for the manager; empty for the host's own store.
    `by_link`: it is fetched by a link, so it is not there once more. `release_key`: the public key by which alone the
    agent's releases may be signed on this host, in Base64; empty where whoever makes the script knows none.
    """

    worker_id: str
    token: str = field(repr=False)
    api_url: str
    heartbeat_interval_seconds: int
    insecure: bool
    join: SwarmJoin | None
    ca_certificate: str = ""
    by_link: bool = False
    release_key: str = ""


class _Template(string.Template):
    """Shell has its own use for a single sign of every kind."""

    delimiter = "@@"


def render(script: InstallScript) -> str:
    """The whole script, POSIX sh. It is a secret, for it holds the worker's token and the swarm's."""
    agent, libraries, url = agent_archive(), requirements(), urlsplit(script.api_url)
    values = {
        "agent_version": version("skyctl"),
        "agent_sha256": hashlib.sha256(agent).hexdigest(),
        "requirements_sha256": hashlib.sha256(libraries.encode()).hexdigest(),
        "config": json.dumps(_config(script)),
        "swarm_join": json.dumps(_swarm_join(script.join)),
        "swarm_address": script.join.address if script.join else "",
        "worker_id": script.worker_id,
        "invitation": hashlib.sha256(script.token.encode()).hexdigest(),
        "api_url": script.api_url,
        "manager_host": url.hostname or "",
        "manager_port": str(url.port or (443 if url.scheme == "https" else 80)),
        "manager_path": url.path.rstrip("/"),
        "next_link": f"skyctl workers install-script --worker {script.worker_id} --link" if script.by_link else "",
        "ca_certificate": script.ca_certificate.strip(),
        "release_key": script.release_key,
    }
    texts = {
        "agent": base64.encodebytes(agent).decode().rstrip(),
        "requirements": libraries.rstrip(),
        "unit": _text("worker.service").rstrip(),
        "uninstaller": uninstaller().rstrip(),
    }
    quoted = {name: shlex.quote(value) for name, value in values.items()}
    return _Template("".join(map(_part, PARTS))).substitute(quoted | texts)


def uninstaller() -> str:
    """The script that removes all of it from a host; it holds no secret."""
    shebang = "#!/bin/sh\n# Removes the agent of skyctl, and all of its files, from this host. Docker stays.\n"
    shebang += "# shellcheck disable=SC2034 # not every part uses all that is named at the top\nset -eu\n\n"
    return shebang + "".join(map(_part, UNINSTALLER_PARTS)) + '{ uninstall "$@"; }\n'


def refusal(code: int, message: str, hint: str) -> str:
    """The stand-in for a script that is not given: shell that says why and fails, since it may be piped into sh."""
    text = shlex.quote(f"error W{code}: {printable(message)}\nhint: {printable(hint)}")
    return f"#!/bin/sh\nprintf '%s\\n' {text} >&2\nexit {code}\n"


def requirements() -> str:
    """The libraries of the agent: pinned, each with the SHA-256 of all files that may be installed as it."""
    return _text("requirements.txt")


@cache
def agent_archive() -> bytes:
    """The agent of this very version as a tar.gz, packed once by a process; the same files give the same bytes with any
    Python that has the same zlib."""
    package = _agent_package()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for source in sorted(package.rglob("*.py")):
            content = source.read_bytes()
            member = tarfile.TarInfo(source.relative_to(package.parent).as_posix())
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    compressed = io.BytesIO()
    with gzip.GzipFile(
        filename="", mode="wb", fileobj=compressed, mtime=0
    ) as file:  # gzip.compress names the system in some
        file.write(archive.getvalue())
    return compressed.getvalue()


def _part(name: str) -> str:
    return _text(f"parts/{name}.sh")


@cache
def _text(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _agent_package() -> Path:
    spec = find_spec("skyagent")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("skyagent, the agent that the script carries, is not installed beside skyctl")
    return Path(spec.origin).parent


def _config(script: InstallScript) -> dict[str, object]:
    """The agent's configuration file, in the form of the panel's own agent."""
    config: dict[str, object] = {
        "apiUrl": script.api_url,
        "authToken": script.token,
        "workerId": script.worker_id,
        "heartbeatInterval": script.heartbeat_interval_seconds,
    }
    if script.ca_certificate:
        config["caFile"] = CA_FILE
    return {**config, "insecure": True} if script.insecure else config


def _swarm_join(join: SwarmJoin | None) -> dict[str, object] | None:
    """The body of the Docker engine's `POST /swarm/join`."""
    if join is None:
        return None
    return {"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": [join.address], "JoinToken": join.token}
