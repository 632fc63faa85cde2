"""The folder from which a host without the internet installs."""

import fcntl
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path

import pytest

from skyctl.installer import agent_archive
from skyctl.operations.admin import bundles
from tests.conftest import Cli

pytestmark = pytest.mark.in_process

URL = {"SKYCTL_API_URL": "https://manager.example.com"}


def test_a_bundle_has_everything_and_the_checksums_of_it(cli: Cli, tmp_path: Path) -> None:
    folder, packages = tmp_path / "bundle", tmp_path / "packages"
    for kind in ("python", "docker"):
        (packages / kind).mkdir(parents=True)
        (packages / kind / f"{kind}.deb").write_text(kind)
    done = cli(
        "workers",
        "bundle",
        "--output",
        str(folder),
        "--name",
        "web-1",
        "--platform",
        "x86_64",
        "--packages",
        str(packages),
        **URL,
    )
    assert (done.returncode, done.stdout) == (0, f"{folder}\n"), done.stderr
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    sums = dict(line.split("  ")[::-1] for line in files.pop("SHA256SUMS").read_text().splitlines())
    assert sums == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert files["skyagent.tar.gz"].read_bytes() == agent_archive()
    assert files["packages/docker/docker.deb"].read_text() == "docker"
    script = files["install.sh"]
    assert script.read_text().startswith("#!/bin/sh\n# Makes this host a worker")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, script)] == [0o700, 0o600]
    wheels = sorted(name.removeprefix("wheels/").split("-")[0] for name in files if name.startswith("wheels/"))
    assert wheels == sorted(
        [
            "anyio",
            "anyio",
            "certifi",
            "exceptiongroup",
            "h11",
            "httpcore",
            "httpx",
            "idna",
            "psutil",
            "typing_extensions",
        ]
    )
    listed = json.loads(cli("workers", "list", "-o", "json").stdout)["workers"]
    assert [worker["name"] for worker in listed] == ["web-1"]


def test_what_cannot_be_bundled_leaves_nothing_and_invites_nobody(cli: Cli, tmp_path: Path) -> None:
    folder, empty = tmp_path / "bundle", tmp_path / "empty"
    empty.mkdir()
    refused = [
        (4, ["--output", str(empty / "a/b")], {}, f"error: --output: there is no folder {empty}/a"),
        (
            2,
            ["--output", str(folder), "--worker", "x", "--name", "y"],
            {},
            "error: --worker and --name exclude each other",
        ),
        (4, ["--output", str(empty)], {}, f"error: --output: {empty} is there already"),
        (2, ["--output", str(folder), "--platform", "mips"], {}, "error: --platform: 'mips' is not accepted"),
        (
            2,
            ["--output", str(folder), "--packages", str(empty)],
            {},
            f"error: --packages: there is no *.deb in {empty}/python",
        ),
        (4, ["--output", str(folder)], {"SKYCTL_API_URL": "http://manager.example.com"}, "is plain HTTP"),
        (
            5,
            ["--output", str(folder)],
            {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(empty)},
            "error: pip cannot download the",
        ),
    ]
    for code, options, environment, says in refused:
        done = cli("workers", "bundle", *options, **(URL | environment))
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert says in done.stderr
        assert "\nhint: " in done.stderr
    assert list(empty.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("bundle")] == []
    assert json.loads(cli("workers", "list", "-o", "json").stdout)["total"] == 0


def test_what_killed_runs_left_is_removed_by_the_next_and_what_is_being_made_stays(cli: Cli, tmp_path: Path) -> None:
    left, made = (Path(tempfile.mkdtemp(prefix=bundles.PREFIX, dir=tmp_path)) for _ in range(2))
    for folder in (left, made):
        (folder / "install.sh").write_text("a-token")
    number = os.open(made, os.O_RDONLY)
    fcntl.flock(number, fcntl.LOCK_EX)
    nowhere = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    assert cli("workers", "bundle", "--output", str(tmp_path / "bundle"), **(URL | nowhere)).returncode == 5
    os.close(number)
    assert [path.name for path in tmp_path.glob(".skyctl-bundle.*")] == [made.name]
