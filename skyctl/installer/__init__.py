"""The script by which a host becomes a worker: a shell template, filled with one worker's values and the agent itself."""

import base64
import gzip
import hashlib
import io
import json
import shlex
import string
import tarfile
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from skyctl.model import SwarmJoin


@dataclass(frozen=True, slots=True)
class InstallScript:
    """What makes one worker's script different from another's. `insecure` lets its agent send the token over plain HTTP."""

    worker_id: str
    token: str = field(repr=False)
    api_url: str
    heartbeat_interval_seconds: int
    insecure: bool
    join: SwarmJoin | None


class _Template(string.Template):
    """Shell has its own use for a single sign of every kind."""

    delimiter = "@@"


def render(script: InstallScript) -> str:
    """The whole script, POSIX sh. It is a secret, for it holds the worker's token and the swarm's."""
    agent = agent_archive()
    template = _text("install.sh")
    values = {
        "agent_version": version("skyctl"),
        "agent_sha256": hashlib.sha256(agent).hexdigest(),
        "httpx_version": version("httpx"),
        "psutil_version": version("psutil"),
        "config": json.dumps(_config(script)),
        "swarm_join": json.dumps(_swarm_join(script.join)),
    }
    quoted = {name: shlex.quote(value) for name, value in values.items()}
    parts = {"identity": _text("parts/identity.sh"), "unit": _text("worker.service")}
    return _Template(template).substitute(quoted, **parts, agent=base64.encodebytes(agent).decode().rstrip())


def _text(name: str) -> str:
    """A file of this package, without its last line's end."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8").removesuffix("\n")


def agent_archive() -> bytes:
    """The agent of this very version as a tar.gz; the same files give the same bytes, wherever and whenever it is made."""
    package = _agent_package()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for source in sorted(package.rglob("*.py")):
            content = source.read_bytes()
            member = tarfile.TarInfo(source.relative_to(package.parent).as_posix())
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(archive.getvalue(), mtime=0)


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
    return {**config, "insecure": True} if script.insecure else config


def _swarm_join(join: SwarmJoin | None) -> dict[str, object] | None:
    """The body of the Docker engine's `POST /swarm/join`."""
    if join is None:
        return None
    return {"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": [join.address], "JoinToken": join.token}
