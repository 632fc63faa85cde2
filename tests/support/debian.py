"""A host whose apt and dpkg are this machine's own, with an archive of small packages that a test makes.

All of it is a layer over this machine that only the host's processes see: it has a `/var` of its own and knows of no
package but those of the test.
"""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.helpers import PATIENCE_SECONDS

# Everything is mounted in a namespace of the process alone, and gone with it. What a test keeps is in `kept`.
_ENTER = """
set -e
mount --make-rprivate /
mkdir -p "$1/layer"
mount -t tmpfs tmpfs "$1/layer"
mkdir "$1/layer/upper" "$1/layer/work" "$1/layer/root"
root=$1/layer/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/layer/upper,workdir=$1/layer/work" "$root"
mount --bind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$1/kept/var" "$root/var"
rm -rf "$root/etc/apt"
cp -r "$1/kept/apt" "$root/etc/apt"
rm -f "$root/usr/bin/dockerd" "$root/usr/sbin/dockerd" "$root/usr/local/bin/dockerd"
cd /
shift
exec chroot "$root" /bin/sh -s "$@"
"""
_FOLDERS = (
    "apt/apt.conf.d",
    "var/lib/dpkg/info",
    "var/lib/dpkg/updates",
    "var/lib/apt/lists/partial",
    "var/cache/apt/archives/partial",
    "var/log/apt",
    "var/archive",
    "var/tmp",
)


class Debian:
    """The host; `var` is its `/var`, as this machine sees it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.var = folder, folder / "kept/var"
        for name in _FOLDERS:
            (folder / "kept" / name).mkdir(parents=True)
        (self.var / "run").symlink_to("/run")
        (self.var / "lib/dpkg/status").touch()
        (folder / "kept/apt/sources.list").write_text("deb [trusted=yes] file:/var/archive ./\n")
        (self.var / "archive/Packages").touch()

    def offer(self, name: str, program: str = "", **fields: str) -> None:
        """Put a package into the archive, with a program of that path if it is given; `fields` of its control file."""
        tree = self._folder / "packages" / name
        (tree / "DEBIAN").mkdir(parents=True)
        said = {
            "Package": name,
            "Version": "1",
            "Architecture": "all",
            "Maintainer": "nobody",
            "Description": "-",
            **fields,
        }
        control = "".join(
            f"{field.replace('_', '-')}: {value}\n" for field, value in said.items() if field != "postinst"
        )
        (tree / "DEBIAN/control").write_text(control)
        if "postinst" in fields:
            (tree / "DEBIAN/postinst").write_text(f"#!/bin/sh\n{fields['postinst']}\n")
            (tree / "DEBIAN/postinst").chmod(0o755)
        if program:
            (tree / program).parent.mkdir(parents=True)
            (tree / program).write_text("#!/bin/sh\n")
            (tree / program).chmod(0o755)
        archive = self.var / "archive" / f"{name}.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(archive)],
            check=True,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
        )
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        entry = f"{control}Filename: ./{name}.deb\nSize: {archive.stat().st_size}\nSHA256: {digest}\n\n"
        with (self.var / "archive/Packages").open("a") as index:
            index.write(entry)

    def start(self, script: str) -> "subprocess.Popen[str]":
        """Run shell as its root; stdin is taken, stderr is told."""
        command = ["unshare", "--mount", "sh", "-c", _ENTER, "sh", str(self._folder)]
        (self._folder / "script").write_text(script)
        with (self._folder / "script").open() as stdin:
            return subprocess.Popen(
                command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_ENVIRONMENT
            )

    def run(self, script: str) -> "subprocess.CompletedProcess[str]":
        """The same, until it has ended."""
        process = self.start(script)
        out, error = process.communicate(timeout=PATIENCE_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, error)

    def installed(self) -> set[str]:
        """The packages that are installed."""
        blocks = (self.var / "lib/dpkg/status").read_text().split("\n\n")
        fields = [dict(line.split(": ", 1) for line in block.splitlines() if ": " in line) for block in blocks]
        return {each["Package"] for each in fields if each.get("Status", "").endswith(" installed")}


_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def need_debian() -> None:
    """Skip, saying what is missing, where there can be no such host."""
    if os.geteuid() or not Path("/usr/bin/apt-get").exists():
        pytest.skip("needs root on Debian")
