"""The commands that need an engine, as a person types them, against a real swarm with its monitor and its agents."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import Cli
from tests.support.helpers import eventually

from . import images
from .site import Site

SMALL = ("--cpu", "0.01", "--memory", "16M", "--disk", "0.001", "--endpoint-mode", "dnsrr")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(site: Site, cli: Cli) -> Run:
    """Runs skyctl against the site, whose monitor watches."""
    site.monitor()
    site.until_active("north", "south")
    return lambda *arguments: cli(*arguments, **site.environment)


def test_a_service_is_deployed_changed_and_removed(site: Site, run: Run, tmp_path: Path) -> None:
    dry = run("services", "deploy", "web", "--image", images.WEB, *SMALL, "--dry-run")
    assert (dry.returncode, dry.stdout.startswith("web would go to ")) == (0, True), dry.stderr
    assert site.services() == {}
    made = run("services", "deploy", "web", "--image", images.WEB, *SMALL, "--env", "A=1", "--wait")
    assert (made.returncode, made.stdout.startswith("web runs on ")) == (0, True), made.stderr
    secrets = tmp_path / "secrets"
    secrets.write_text("B=2\n")
    changed = run("services", "deploy", "web", "--env-from", str(secrets), "--label", "team=x", "--wait")
    assert (changed.returncode, changed.stdout.endswith(": it stays where it is\n")) == (0, True), changed.stderr
    spec = site.services()["web"].spec
    assert (dict(spec.environment), dict(spec.labels)) == ({"A": "1", "B": "2"}, {"team": "x"})
    assert (spec.limits.memory_mb, spec.endpoint_mode) == (16, "dnsrr")
    file = tmp_path / "service.yaml"
    file.write_text(yaml.safe_dump({"name": "web", "image": images.WEB, "cpu": 0.01, "memory": "16M", "disk": 0.001}))
    assert run("services", "deploy", "-f", str(file), "--wait", "--", "sh", "-c", "sleep 1000").returncode == 0
    spec = site.services()["web"].spec
    assert (dict(spec.environment), list(spec.command)) == ({}, ["sh", "-c", "sleep 1000"])
    assert json.loads(run("services", "show", "web", "-o", "json").stdout)["deployment"]["status"] == "running"
    removed = run("services", "remove", "web", "--yes")
    assert (removed.returncode, removed.stdout) == (0, "web removed\n")
    assert run("services", "show", "web").returncode == 3
    eventually(lambda: not any(site.containers(node) for node in site.swarm.workers))


def test_what_cannot_run_says_why(site: Site, run: Run) -> None:
    large = run("services", "deploy", "large", "--image", images.WEB, *SMALL, "--memory", "60000G")
    assert large.returncode == 4
    assert "error: large finds no place: " in large.stderr
    assert "MiB of memory" in large.stderr
    assert "large" not in site.services()
    absent = run("services", "deploy", "absent", "--image", images.ABSENT, *SMALL, "--wait")
    assert absent.returncode == 7
    error, hint = absent.stderr.splitlines()[-2:]
    assert error == f"error: absent failed: No such image: {images.ABSENT}"
    assert hint == "hint: see `skyctl services show absent`"
    late = run("services", "deploy", "late", "--image", images.HEALTHY, *SMALL, "--wait", "--timeout", "1s")
    assert late.returncode == 6
    assert "the deployment goes on; see `skyctl services show late`" in late.stderr


def test_a_drain_is_planned_watched_and_taken_back(site: Site, run: Run) -> None:
    site.deploy("one", "two", "three", to="north")
    north, south = site.swarm.workers
    plan = run("workers", "drain", "north", "--plan", "-o", "json")
    assert plan.returncode == 0, plan.stderr
    assert {(each["service"], each["target"]) for each in json.loads(plan.stdout)["containers"]} == {
        (name, "south") for name in ("one", "two", "three")
    }
    both = run("workers", "drain", "north", "south", "--plan")
    assert both.returncode == 4
    assert "3 containers, 3 would be left" in both.stdout
    assert site.containers(north) == 3
    assert site.worker("north").drain_requested_at is None
    drained = run("workers", "drain", "north", "--wait", "--reason", "new disk")
    assert (drained.returncode, drained.stdout) == (0, "north drains\nnorth: empty, 3 moved\n"), drained.stderr
    assert (site.containers(north), site.containers(south)) == (0, 3)
    assert set(site.where().values()) == {"south"}
    refused = run("workers", "remove", "south", "--yes")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert run("workers", "undrain", "north").returncode == 0
    site.until_active("north")
    eventually(lambda: site.swarm.engine.observe(()).nodes[site.swarm.ids["north"]].availability == "active")


def test_services_of_the_engine_are_adopted_as_they_run(site: Site, run: Run) -> None:
    def create(name: str, *options: str) -> None:
        command = ("docker", "service", "create", "--detach", "--no-resolve-image", "--name", name, *options)
        site.swarm.manager.run(*command, "--endpoint-mode", "dnsrr", images.WEB)

    create("old", "--constraint", "node.role==worker")
    create("pair", "--replicas", "2", "--constraint", "node.role==worker")
    create("lone", "--constraint", "node.role==manager")

    def containers() -> list[str]:
        return sorted(each for node in site.swarm.workers for each in node.run("docker", "ps", "--quiet").split())

    def obstacles() -> dict[str, str | None]:
        found = json.loads(run("services", "adopt", "-o", "json").stdout)["services"]
        return {each["name"]: each["obstacle"] for each in found}

    manager = "its node manager is no worker: see `skyctl workers install-script`"
    wanted = {"old": None, "pair": None, "lone": manager}
    eventually(lambda: obstacles() == wanted)
    before = containers()
    some = run("services", "adopt", "old", "pair", "--memory", "64M", "--yes")
    told = f"old is under management, on {site.where()['old']}\npair is under management, on 2 containers\n"
    assert (some.returncode, some.stdout) == (0, told)
    assert run("services", "adopt", "--all", "--yes").returncode == 4
    assert run("services", "adopt", "nobody").returncode == 3
    listed = json.loads(run("services", "list", "-o", "json").stdout)["services"]
    assert [(each["name"], each["status"], each["limits"]["memoryMb"]) for each in listed] == [
        ("old", "running", 64),
        ("pair", "running", 64),
    ]
    changed = run("services", "deploy", "old", "--env", "A=1")
    assert changed.returncode == 4
    assert "old was adopted" in changed.stderr
    assert containers() == before
    source = str(site.where()["old"])
    moved = run("workers", "drain", source, "--wait", "--timeout", "60s")
    assert (moved.returncode, moved.stdout) == (0, f"{source} drains\n{source}: empty, 2 moved\n")
    assert {source, str(site.where()["old"])} == {"north", "south"}
    assert run("workers", "undrain", source).returncode == 0


def test_services_of_a_file_are_deployed_one_after_the_other_and_what_fails_is_said(run: Run, tmp_path: Path) -> None:
    small = {"image": images.WEB, "cpu": 0.01, "memory": "16M", "disk": 0.001, "endpointMode": "dnsrr"}
    file = tmp_path / "services.yaml"
    file.write_text(
        yaml.safe_dump_all([{"name": "a", **small}, {"name": "b", **small, "memory": "60000G"}, {"name": "c", **small}])
    )
    done = run("services", "deploy", "-f", str(file), "-o", "json")
    assert done.returncode == 7
    assert [each["service"] for each in json.loads(done.stdout)["services"]] == ["a", "c"]
    assert "error: b: b finds no place" in done.stderr


def test_any_service_is_scaled_restarted_rolled_back_and_read(site: Site, run: Run) -> None:
    engine = site.swarm.engine
    command = ("--", "sh", "-c", "echo begun; sleep 1000")

    def running() -> set[str]:
        [service] = engine.observe().services.values()
        return {task.id for task in service.tasks if (task.state, task.wanted) == ("running", "running")}

    made = run("services", "deploy", "web", "--image", images.WEB, *SMALL, "--wait", *command)
    assert made.returncode == 0, made.stderr
    [first] = running()
    assert run("services", "scale", "web=3").stdout == "web gets 3 containers\n"
    eventually(lambda: len(running()) == 3)
    assert first in running()
    eventually(lambda: site.services()["web"].status == "running")
    assert "3 of 3 run" in run("services", "show", "web").stdout
    log = run("services", "logs", "web").stdout.splitlines()
    assert len(log) == 3
    assert {line.partition(" ")[0] for line in log} <= {"manager", "north", "south"}
    assert {line.partition("| ")[2] for line in log} == {"begun"}
    before = running()
    assert run("services", "restart", "web").returncode == 0
    eventually(lambda: len(running()) == 3 and not running() & before)
    changed = run("services", "deploy", "web", "--env", "A=1")
    assert "web: env.A: added" in changed.stderr
    eventually(lambda: site.services()["web"].status == "running")
    assert run("services", "rollback", "web", "--yes").returncode == 0
    assert dict(site.services()["web"].spec.environment) == {}
    eventually(lambda: site.services()["web"].status == "running")
    assert run("services", "scale", "web=1").returncode == 0
    eventually(lambda: len(running()) == 1 and next(iter(engine.observe().services.values())).node_id)
    eventually(lambda: site.running()["web"] == [site.where()["web"]])
