"""What is generated into the documents is what the program says."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import prometheus_client
import pytest
from prometheus_client.metrics import MetricWrapperBase

import skyctl.api.endpoint
import skyctl.api.heartbeats
import skyctl.monitor.metrics
from skyctl.cli import app
from skyctl.cli.help_pages import ORDER
from skyctl.settings.table import TABLE
from tests.conftest import clean_environment
from tests.docs import man_pages

ROOT = Path(__file__).parents[2]
SETTINGS = f"""# Settings

Made from `skyctl/settings/table.py`; `skyctl help settings` shows them. {ORDER}

"""


def settings_page() -> str:
    rows = [
        f"| `{'`, `'.join(setting.variables)}` | `{setting.key}` | {setting.default} | {setting.meaning} |\n"
        for setting in TABLE
    ]
    return f"{SETTINGS}| environment | key in the file | default | meaning |\n|---|---|---|---|\n{''.join(rows)}"


def commands(command: Any, path: str, parent: Any = None) -> Iterator[tuple[str, Any]]:
    """Every command by what is typed for it, with its context; groups before what they hold."""
    called = command.context_settings | {"info_name": path.rpartition(" ")[2], "terminal_width": 100}
    context = command.context_class(command, parent=parent, **called)
    yield path, context
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{path} {name}", context)


def commands_page() -> str:
    parts = ["# Commands\n\nMade from the program by `make docs`; what each prints for `--help`.\n"]
    for path, context in commands(app.program(), "skyctl"):
        text = "\n".join(line.rstrip() for line in context.get_help().strip().splitlines())
        parts.append(f"\n## {path}\n\n```text\n{text}\n```\n")
    return "".join(parts)


def metrics_of(module: ModuleType) -> list[tuple[prometheus_client.Metric, MetricWrapperBase]]:
    metrics = [value for value in vars(module).values() if isinstance(value, MetricWrapperBase)]
    return [(family, metric) for metric in metrics for family in metric.describe()]


def metrics_page() -> str:
    """The metrics by their names: what stands for some labels of one, such as `ACCEPTED`, has its name as well."""
    programs = {
        "`skyctl serve`, at `/metrics`": [skyctl.api.heartbeats, skyctl.api.endpoint],
        "`skyctl monitor --metrics-port 9464`": [skyctl.monitor.metrics],
    }
    text = "# Metrics\n\nMade from the program by `make docs`: what Prometheus finds.\n"
    for program, modules in programs.items():
        text += f"\n## {program}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n"
        families = {family.name: (family, metric) for module in modules for family, metric in metrics_of(module)}
        for _, (family, metric) in sorted(families.items()):
            labels = ", ".join(f"`{name}`" for name in metric._labelnames) or "-"
            name = family.name + ("_total" if family.type == "counter" else "")
            text += f"| `{name}` | {family.type} | {labels} | {family.documentation} |\n"
    return text


@pytest.mark.parametrize(
    ("name", "make"), [("commands", commands_page), ("metrics", metrics_page), ("settings", settings_page)]
)
def test_the_reference_is_the_programs(name: str, make: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`make docs` writes it again."""
    monkeypatch.setenv("COLUMNS", "100")
    page, text = ROOT / "docs/reference" / f"{name}.md", make()
    if os.environ.get("UPDATE_DOCUMENTS"):
        page.parent.mkdir(exist_ok=True)
        page.write_text(text)
    assert page.read_text() == text


def test_every_metric_is_in_the_reference() -> None:
    text = metrics_page()
    ours = [metric for metric in prometheus_client.REGISTRY.collect() if metric.name.startswith("skyctl_")]
    assert ours
    assert [metric.name for metric in ours if f"`{metric.name}" not in text] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completions_are_the_programs(shell: str) -> None:
    """`make docs` writes the files again."""
    script = Path(sys.executable).parent / "skyctl"
    made = subprocess.run(
        [script],
        env=clean_environment() | {"_SKYCTL_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    file = ROOT / "completions" / f"skyctl.{shell}"
    if os.environ.get("UPDATE_DOCUMENTS"):
        file.write_text(made)
    assert file.read_text() == made


def test_the_manual_pages_are_the_programs() -> None:
    """`make docs` writes the files again."""
    folder, made = ROOT / "man", man_pages.pages()
    if os.environ.get("UPDATE_DOCUMENTS"):
        folder.mkdir(exist_ok=True)
        for name in {path.name for path in folder.iterdir()} - set(made):
            (folder / name).unlink()
        for name, text in made.items():
            (folder / name).write_text(text)
    assert {path.name: path.read_text(encoding="ascii") for path in folder.iterdir()} == made


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_the_manual_pages_are_rendered_without_a_warning() -> None:
    said = {}
    for path in sorted((ROOT / "man").iterdir()):
        shown = subprocess.run(
            ["groff", "-man", "-ww", "-Tutf8", "-P-cbou", path], capture_output=True, text=True, check=True
        )
        assert shown.stderr == "", path
        said[path.name] = " ".join(shown.stdout.split())
    assert "skyctl workers drain [OPTIONS] {WORKER...}" in said["skyctl-workers.1"]
    assert "--max-parallel N" in said["skyctl-workers.1"]
    assert "skyctl workers label web-1 --pool ''" in said["skyctl-workers.1"], "what is shown can be typed"
    assert "SKYCTL_DATABASE_URL or DATABASE_URL" in said["skyctl-settings.5"]
    assert "skyagent status" in said["skyagent.8"]
