"""On a real swarm, with a registry that wants a password: an image is what its name meant when it was deployed, and a
move keeps the credentials with which the nodes fetch it."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyctl.domain.errors import EngineRefused, EngineUnavailable
from skyctl.domain.states import EndpointMode
from skyctl.domain.workloads import ServiceSpec
from skyctl.operations.admin import deploy as deploy_admin
from skyctl.operations.admin import drains
from tests.support.helpers import TESTS, eventually

from . import images
from .site import LIMITS, Site

# Each node's own loopback: an engine asks only there without TLS. All of them serve the same folder.
REGISTRY, USER, PASSWORD = "127.0.0.1:5000", "somebody", "a secret"
IMAGE = f"{REGISTRY}/app:latest"


@pytest.fixture
def registry(site: Site, tmp_path: Path) -> Iterator[None]:
    """One on every node, with a first image."""
    known = subprocess.run(["htpasswd", "-Bbn", USER, PASSWORD], capture_output=True, text=True, check=True).stdout
    (tmp_path / "htpasswd").write_text(known)
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "images")}},
        "http": {"addr": REGISTRY},
        "auth": {"htpasswd": {"realm": "lab", "path": str(tmp_path / "htpasswd")}},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(settings))
    nodes = (site.swarm.manager, *site.swarm.workers)
    serving = [node.spawn("docker-registry", "serve", str(tmp_path / "registry.yml")) for node in nodes]
    push(site, tmp_path, "first")
    yield
    for each in serving:
        each.terminate()
        each.wait()


def credentials(tmp_path: Path) -> Path:
    """The folder of an administrator who has logged in."""
    entry = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "docker").mkdir(exist_ok=True)
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {REGISTRY: {"auth": entry}}}))
    return tmp_path / "docker"


def push(site: Site, tmp_path: Path, label: str) -> None:
    """Make the name mean another image."""
    manager, folder = site.swarm.manager, str(credentials(tmp_path))
    manager.run("sh", "-c", f"echo 'FROM {images.WEB}\nLABEL is={label}' | docker build -q -t {IMAGE} -")
    eventually(lambda: _pushed(site, folder))


def _pushed(site: Site, folder: str) -> bool:
    push = [*site.swarm.manager.command("docker", "--config", folder, "push", "-q", IMAGE)]
    return subprocess.run(push, capture_output=True, timeout=60).returncode == 0


def deploy(site: Site) -> str:
    spec = ServiceSpec("a", IMAGE, LIMITS, endpoint_mode=EndpointMode.DNSRR)
    return deploy_admin.deploy(site.context, TESTS, site.organization, spec).unpinned


def labels(site: Site, name: str) -> str:
    node = next(node for node in site.swarm.workers if node.name == name)
    return node.run("docker", "ps", "--format", '{{.Label "is"}}').strip()


@pytest.mark.usefixtures("registry")
def test_a_drain_runs_the_image_that_was_deployed_with_the_credentials_of_that_time(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nobody"))
    with pytest.raises((EngineRefused, EngineUnavailable), match=r"does not learn the digest|says no"):
        site.swarm.engine.digest(IMAGE)
    site.monitor()
    site.until_active("north", "south")
    monkeypatch.setenv("DOCKER_CONFIG", str(credentials(tmp_path)))
    assert deploy(site) == ""
    eventually(lambda: site.services()["a"].status == "running")
    source = str(site.where()["a"])
    assert labels(site, source) == "first"
    push(site, tmp_path, "second")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nobody"))
    drains.drain(site.context, [site.worker(source).id], TESTS)
    target = "south" if source == "north" else "north"
    eventually(lambda: site.running() == {"a": [target]})
    assert labels(site, target) == "first"
