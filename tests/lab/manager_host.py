"""A host on which skyctl is installed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.helpers import eventually

from .commands import CommandFailed
from .machines import Host

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs/operations.md"
SERVE, MONITOR = "skyctl-serve", "skyctl-monitor"
INSTALL_SECONDS = 300
# What the host has no curl for: an answer's status and body, and with a token as the administrator.
ASK = """
import ssl, sys, urllib.request
url, method, token = sys.argv[1:]
trust = ssl.create_default_context(cafile="/var/lib/skyctl/tls/ca.pem")
request = urllib.request.Request(url, method=method, headers={"Authorization": "Bearer " + token})
with urllib.request.urlopen(request, timeout=30, context=trust) as answer:
    print(answer.status, answer.read().decode())
"""


class ManagerHost:
    """A host on which skyctl is installed as the documents say."""

    def __init__(self, host: Host) -> None:
        self.host = host

    @property
    def url(self) -> str:
        return f"https://{self.host.address}:8642"

    def skyctl(self, *words: str) -> str:
        """A command of skyctl with the services' settings, as the documents say it is given."""
        settings = "set -a; . /etc/skyctl/skyctl.env; . /etc/skyctl/monitor.env; "
        command = ("sh", "-c", settings + 'skyctl "$@" 2>&1', "sh", *words)
        return self.host.run(*command, timeout_seconds=INSTALL_SECONDS)

    def documented(self) -> str:
        """Run what the documents say from the settings on, until the services run; what that prints."""
        text = OPERATIONS.read_text()
        lines = text[text.index("    set -a;") : text.index("    skyctl doctor\n")]
        lines = lines.replace("manager.example.com", self.host.address)
        return self.host.run("sh", "-e", stdin=lines, timeout_seconds=INSTALL_SECONDS)

    def ask(self, method: str, path: str, token: str = "") -> str:
        return self.host.run("python3", "-c", ASK, self.url + path, method, token)

    def is_well(self) -> bool:
        """Whether the doctor finds nothing that failed."""
        try:
            self.skyctl("doctor")
        except CommandFailed:
            return False
        return True

    def show(self, unit: str, what: str) -> str:
        return self.host.run("systemctl", "show", "--property", what, "--value", unit).strip()

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz").startswith("200 ")
        except CommandFailed:
            return False

    def exposure(self, unit: str) -> float:
        """How exposed systemd takes a service for, from 0 to 10."""
        told = re.search(
            r"Overall exposure level for \S+: ([0-9.]+)", self.host.run("systemd-analyze", "security", unit)
        )
        assert told
        return float(told[1])

    def survives(self, unit: str, *kill: str) -> None:
        """End its process, and see that the service runs again in another one."""
        before = self.show(unit, "MainPID")
        self.host.run("systemctl", "kill", "--kill-whom=main", *kill, unit)
        eventually(
            lambda: self.show(unit, "MainPID") not in {before, "0"} and self.show(unit, "ActiveState") == "active"
        )


def install(host: Host) -> None:
    """Have this very skyctl on a host that has Python: the wheel, and the libraries that it names."""
    wheels = host.folder / "root/srv"
    build = [*("pip", "wheel", "--quiet", "--no-deps"), "--wheel-dir", str(wheels), str(ROOT)]
    subprocess.run([sys.executable, "-m", *build], check=True, capture_output=True)
    shutil.copy(ROOT / "constraints.txt", wheels)
    host.run("python3", "-m", "venv", "/opt/skyctl", timeout_seconds=INSTALL_SECONDS)
    line = "/opt/skyctl/bin/pip install --quiet --no-compile --constraint /srv/constraints.txt /srv/skyctl-*.whl 2>&1"
    host.run("sh", "-c", line, timeout_seconds=INSTALL_SECONDS)
    host.run("ln", "-s", "/opt/skyctl/bin/skyctl", "/usr/local/bin/skyctl")
