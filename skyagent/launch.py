"""`python -m skyagent.launch`: run the release that is to run, and watch over one on trial; the arguments are the
agent's.

It belongs to the installed release, which the agent itself cannot write, and checks an archive each time before it is
run. It never becomes newer by an upgrade, so it does nothing but this.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from skyagent import releases
from skyagent.releases import BadRelease, Choice, Releases


def main() -> int:
    """Run the agent; its exit code."""
    known = releases.of(os.environ)
    if known:
        _prepare(known)
    # From here on `import skyagent` means the chosen release. Nothing of it is imported before its trial is watched.
    for name in [name for name in sys.modules if name.partition(".")[0] == releases.PACKAGE]:
        del sys.modules[name]
    from skyagent.__main__ import main as run  # here, since it is to be the chosen release's

    return run()


def _prepare(known: Releases) -> None:
    """Make the chosen release the one that is imported; where it cannot be unpacked, the installed one."""
    choice = known.choose(float(os.environ.get(releases.TRIAL) or releases.TRIAL_SECONDS))
    os.environ[releases.RELEASE] = choice.sha256
    if choice.archive is None:
        return
    folder = Path(os.environ.get("RUNTIME_DIRECTORY") or os.environ["STATE_DIRECTORY"], "release")
    try:
        releases.unpack(choice.archive, folder)
    except (BadRelease, OSError) as error:
        releases.log_failure("release_not_unpacked", str(error))
        os.environ[releases.RELEASE] = known.installed
        return
    sys.path.insert(0, str(folder))
    if choice.trial_seconds is not None:
        _watch(known, choice, choice.trial_seconds)


def _watch(known: Releases, choice: Choice, seconds: float) -> None:
    """End this process unless a heartbeat is accepted in time; whoever starts it again runs what ran before."""

    def watch() -> None:
        time.sleep(seconds)
        trial = known.read().trial
        if trial and trial.sha256 == choice.sha256:
            releases.log_failure(
                "release_silent", f"{choice.sha256}: no heartbeat of it was accepted within {seconds:.0f} s"
            )
            os._exit(1)

    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))  # these are the agent's
    threading.Thread(target=watch, name="trial", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
