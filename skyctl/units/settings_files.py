"""The settings files of the services: one that both read, and one for the monitor alone, with what `serve` must not
know.

What an administrator has written there stays; what only the monitor needs is moved to its file.
"""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from skyctl.domain.errors import ValidationError
from skyctl.settings.table import TABLE, Setting

SERVE = Path("/etc/skyctl/skyctl.env")
MONITOR = Path("/etc/skyctl/monitor.env")
OF_MONITOR = (
    "alert_channels",
    "docker_host",
    "swarm_advertise_addr",
    "encrypt_networks",
    "migrations_at_once",
    "migrations_into_one",
    "migration_timeout",
    "migration_attempts",
)
OPTIONS = {
    SERVE: ("SKYCTL_SERVE_ARGS", "options of `skyctl serve`, such as --host 0.0.0.0 to listen on every address"),
    MONITOR: ("SKYCTL_MONITOR_ARGS", "options of `skyctl monitor`, such as --metrics-port 9464"),
}
HEADS = {
    SERVE: "# Read by skyctl-serve.service and skyctl-monitor.service. It holds secrets: only root may read it.\n",
    MONITOR: "# Read by skyctl-monitor.service alone. It holds secrets: only root may read it.\n",
}
QUOTES = ("'", '"')


class Statement(NamedTuple):
    """A part of a settings file: what sets a variable, which may take several lines, or a line that sets none."""

    name: str
    text: str

    @property
    def value(self) -> str:
        """The value, as systemd reads it."""
        value = self.text.partition("=")[2].strip()
        try:
            return " ".join(shlex.split(value))
        except ValueError:  # a quotation mark without its second one
            return value


def parse(text: str) -> dict[str, str]:
    """The variables of a settings file, as systemd reads it."""
    return {statement.name: statement.value for statement in _statements(text) if statement.name}


def text_of(file: Path, environment: Mapping[str, str]) -> str:
    """A new settings file: what is set in the environment, and the rest as comments. Raises ValidationError."""
    blocks = [HEADS[file]]
    rows = [(setting.variables, setting.meaning, setting.default) for setting in TABLE if _file_of(setting) == file]
    for names, meaning, default in [*rows, ((OPTIONS[file][0],), OPTIONS[file][1], "")]:
        value = next((environment[name] for name in names if environment.get(name)), None)
        if value and not value.isprintable():
            raise ValidationError(f"{names[0]}: the value holds a line's end or another control character", "remove it")
        line = f"#{names[0]}=" if value is None else f"{names[0]}={shlex.quote(value)}"
        blocks.append(f"# {meaning}{f' (default: {default})' if default else ''}\n{line}\n")
    return "\n".join(blocks)


def without_monitors(text: str) -> str:
    """The file that both services read, without what is for the monitor alone."""
    kept, said = [], set()
    for statement in _statements(text):
        name = statement.name or _commented_out(statement.text)
        if name not in _MONITORS:
            kept.append(statement.text)
        elif name not in said:
            said.add(name)
            kept.append(f"# {name} is in {MONITOR}, which serve does not read\n")
    return "".join(kept)


def with_monitors(text: str, shared: str) -> str:
    """The monitor's file, with what the one that both read says for the monitor alone. Raises ValidationError where the
    two contradict each other."""
    present = parse(text)
    moved: dict[str, list[str]] = {}
    for statement in _statements(shared):
        name = statement.name
        if name not in _MONITORS or present.get(name) == statement.value:
            continue
        if name in present:
            raise ValidationError(f"{name} is set in {SERVE} and otherwise in {MONITOR}", "remove one of the two lines")
        moved.setdefault(name, []).append(statement.text.rstrip("\n") + "\n")
    kept = []
    for statement in _statements(text):
        kept += moved.pop(_commented_out(statement.text), [statement.text])
    return "".join([*kept, *(line for lines in moved.values() for line in lines)])


def _file_of(setting: Setting) -> Path | None:
    if setting.key == "data_dir":  # the units set it
        return None
    return MONITOR if setting.key in OF_MONITOR else SERVE


_MONITORS = {
    OPTIONS[MONITOR][0],
    *(name for setting in TABLE if setting.key in OF_MONITOR for name in setting.variables),
}


def _commented_out(line: str) -> str:
    """The variable that a comment offers to set; empty for any other line."""
    name, equals, _ = line.removeprefix("#").partition("=")
    return name if line.startswith("#") and equals and name.isidentifier() else ""


def _statements(text: str) -> Iterator[Statement]:
    """The parts of a settings file, which together are the whole of it."""
    start = 0
    while start < len(text):
        line_end = _after_line(text, start)
        name, equals, _ = text[start:line_end].partition("=")
        if not equals or name.lstrip().startswith(("#", ";")):
            yield Statement("", text[start:line_end])
            start = line_end
        else:
            end = _end_of_value(text, start + len(name) + 1)
            yield Statement(name.strip(), text[start:end])
            start = end


def _end_of_value(text: str, at: int) -> int:
    """Where a value ends. As systemd has it, a quotation mark means something only where a word of it begins."""
    quote, begins = "", True
    while at < len(text):
        character = text[at]
        if character == "\\" and quote != "'":
            at += 1
        elif quote:
            quote, begins = ("", True) if character == quote else (quote, begins)
        elif character == "\n":
            return at + 1
        elif begins and character in QUOTES:
            quote = character
        else:
            begins = begins and character.isspace()
        at += 1
    return len(text)


def _after_line(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end + 1
