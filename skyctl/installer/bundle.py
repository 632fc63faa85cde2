"""The folder from which a host that reaches nothing but the manager installs: script, agent, wheels, and the checksums
of all."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from skyctl.domain.errors import Undownloadable, ValidationError
from skyctl.installer import agent_archive, requirements

PLATFORMS = ("x86_64", "aarch64")
PACKAGES = ("python", "docker")
SUMS = "SHA256SUMS"
# The oldest Python that the agent runs on, and the C libraries of hosts that may be older than this machine's.
OLDEST_PYTHON = "3.9"
TAGS = ("manylinux2014", "manylinux_2_17", "manylinux_2_28")
DOWNLOAD_SECONDS = 600


def collect(folder: Path, platforms: Sequence[str], packages: Path | None, pip: Sequence[str]) -> None:
    """Put the agent into the folder, the wheels of its libraries for every Python, and Debian packages by what they are
    for. `pip`: the command that runs it.

    Raises ValidationError for packages that are not there, Undownloadable where pip gets no wheels.
    """
    for kind in PACKAGES if packages else ():
        _copy_packages(packages / kind if packages else folder, folder / "packages" / kind)
    (folder / "skyagent.tar.gz").write_bytes(agent_archive())
    wheels = folder / "wheels"
    wheels.mkdir()
    for platform in platforms:
        for chosen in _choices():
            _download(pip, chosen, platform, wheels)


def seal(folder: Path, script: str) -> None:
    """Add the script, a secret, and the checksums of everything."""
    file = folder / "install.sh"
    file.touch(mode=0o600)
    file.write_text(script, encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files)
    (folder / SUMS).write_text("".join(sums), encoding="utf-8")


def _choices() -> Iterator[str]:
    """The requirements without their conditions, which pip would judge by this machine's Python; each library once in a
    choice."""
    blocks = re.split(r"^(?=\w)", requirements(), flags=re.MULTILINE)[1:]
    left = [re.sub(r" ; [^\\\n]*(?= \\)", "", block) for block in blocks]
    while left:
        names = [block.partition("==")[0] for block in left]
        yield "".join(block for n, block in enumerate(left) if names.index(names[n]) == n)
        left = [block for n, block in enumerate(left) if names.index(names[n]) != n]


def _download(pip: Sequence[str], chosen: str, platform: str, wheels: Path) -> None:
    listed = wheels.parent / "requirements.txt"
    listed.write_text(chosen, encoding="utf-8")
    options = [option for tag in TAGS for option in ("--platform", f"{tag}_{platform}")]
    command = [
        *pip,
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--no-deps",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--ignore-requires-python",
        "--python-version",
        OLDEST_PYTHON,
        "--implementation",
        "cp",
        "--abi",
        "abi3",
        "--abi",
        "none",
        *options,
        "--dest",
        str(wheels),
        "--requirement",
        str(listed),
    ]
    process = subprocess.run(
        command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, stdin=subprocess.DEVNULL
    )
    listed.unlink()
    if process.returncode:
        lines = process.stderr.splitlines()
        messages = [line for line in lines if line.startswith("ERROR")] or lines or ["it says nothing"]
        raise Undownloadable(
            f"pip cannot download the agent's libraries for {platform}: {messages[-1]}",
            "this machine must reach PyPI or a mirror of it; see `pip config list`",
        )


def _copy_packages(source: Path, target: Path) -> None:
    files = sorted(source.glob("*.deb")) if source.is_dir() else []
    if not files:
        raise ValidationError(f"--packages: there is no *.deb in {source}", f"put the packages of {source.name} there")
    target.mkdir(parents=True)
    for package in files:
        shutil.copyfile(package, target / package.name)
