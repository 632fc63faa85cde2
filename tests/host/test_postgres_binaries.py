"""The system user as whom PostgreSQL runs for root."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment

# In a mount namespace with an /etc of its own, where the user is missing: several ask for it at once.
SCENE = """
set -e
mount -t tmpfs tmpfs "$1"
cp -a /etc/. "$1"
mount --bind "$1" /etc
sed -i /^skyctl:/d /etc/passwd /etc/shadow /etc/group /etc/gshadow
for number in 1 2 3 4 5 6; do "$2" -c "$3" & done
wait
echo $(grep -c ^skyctl: /etc/passwd)
"""
ASK = """
import sys; from pathlib import Path; from skyctl.host.postgres_binaries import system_account
sys.stdout.write(f"{system_account(Path('/srv')).pw_uid}\\n")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a system user")
def test_those_who_miss_the_system_user_at_once_get_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SCENE, "sh", str(tmp_path), sys.executable, ASK],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *users, entries = done.stdout.split()
    assert (len(users), len(set(users)), entries) == (6, 1, "1")
