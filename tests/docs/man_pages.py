"""The manual pages, made from the command lines of skyctl and skyagent, and from the table of the settings."""

import argparse
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from skyagent import __main__ as agent
from skyagent.settings import VARIABLES
from skyctl.cli import app, help_pages
from skyctl.cli.examples import EXAMPLES, Example
from skyctl.domain.errors import ExitCode
from skyctl.settings.table import TABLE

IN_THE_MAIN_PAGE = ("version", "help")
HEAD = '.\\" Made from the program by `make docs`.\n'
EVERYWHERE = "The options of skyctl(1) may stand anywhere on the line."
AGENT_ENDS = (
    ("0", "A signal ended it; of `status`: it was printed."),
    ("1", "Of `status`: there is nothing to print."),
    ("2", "The command line or the configuration cannot be used."),
)


def escaped(text: str) -> str:
    """Text as roff shows it: no letter of it is an order."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return re.sub(r"^(?=\.)", "\\\\&", plain, flags=re.MULTILINE)


def head(name: str, section: int, what: str) -> str:
    what = what.rstrip(".")
    return f'{HEAD}.TH {name.upper()} {section} "" "skyctl"\n.SH NAME\n{escaped(name)} \\- {escaped(what)}\n'


def paragraphs(text: str) -> str:
    """Paragraphs, each of one line."""
    parts = re.split(r"\n\s*\n", inspect.cleandoc(text).strip())
    return "".join(f".PP\n{escaped(' '.join(part.split()))}\n" for part in parts if part)


def listed(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f".TP\n.B {escaped(term)}\n{escaped(' '.join(text.split()))}\n" for term, text in rows)


def examples(found: Iterable[Example]) -> str:
    return "".join(f".PP\n{escaped(one.what)}:\n.PP\n.EX\n    {escaped(one.line)}\n.EE\n" for one in found)


def records(context: Any) -> list[tuple[str, str]]:
    """What a command takes, as its help has it."""
    found = [parameter.get_help_record(context) for parameter in context.command.get_params(context)]
    return [record for record in found if record]


def usage(context: Any) -> str:
    return f".B {escaped(context.command_path)}\n{escaped(' '.join(context.command.collect_usage_pieces(context)))}\n"


def described(context: Any) -> str:
    return f".SH SYNOPSIS\n{usage(context)}.SH DESCRIPTION\n{paragraphs(context.command.help)}.PP\n{EVERYWHERE}\n"


def short(command: Any) -> str:
    """The first sentences of a command's help."""
    return " ".join(inspect.cleandoc(command.help or "").split("\n\n")[0].split())


def exits() -> str:
    return ".SH EXIT STATUS\n" + listed((f"{code:d}", f"{code.meaning}.") for code in ExitCode)


def see_also(*pages: str) -> str:
    return f".SH SEE ALSO\n{escaped(', '.join(pages))}\n"


def children(context: Any) -> Iterator[tuple[str, Any]]:
    """The commands below one, each with its context."""
    for name, command in context.command.commands.items():
        yield name, command.context_class(command, info_name=name, parent=context)


def main_page(root: Any) -> str:
    named = [
        (f"skyctl-{name}" * (name not in IN_THE_MAIN_PAGE) or name, short(each.command))
        for name, each in children(root)
    ]
    rows = [(f"{name}(1)" if name.startswith("skyctl-") else f"skyctl {name}", text) for name, text in named]
    return (
        head("skyctl", 1, short(root.command))
        + f".SH SYNOPSIS\n{usage(root)}.SH DESCRIPTION\n{paragraphs(root.command.help)}"
        + f".SH OPTIONS\n{listed(records(root))}.SH COMMANDS\n{listed(rows)}"
        + exits()
        + see_also("skyctl-settings(5)", "skyagent(8)")
    )


def page_of_command(name: str, context: Any) -> str:
    return (
        head(f"skyctl-{name}", 1, short(context.command))
        + described(context)
        + f".SH OPTIONS\n{listed(records(context))}"
        + (f".SH EXAMPLES\n{examples(EXAMPLES[name])}" if name in EXAMPLES else "")
        + exits()
        + see_also("skyctl(1)", "skyctl-settings(5)")
    )


def page_of_group(name: str, context: Any) -> str:
    parts = [head(f"skyctl-{name}", 1, short(context.command))]
    parts.append(
        f".SH SYNOPSIS\n{usage(context)}.SH DESCRIPTION\n{paragraphs(context.command.help)}.PP\n{EVERYWHERE}\n"
    )
    parts.append(".SH COMMANDS\n")
    for child, one in children(context):
        typed = " ".join([one.command_path, *one.command.collect_usage_pieces(one)])
        parts.append(f".SS {escaped(typed)}\n{paragraphs(one.command.help)}{listed(records(one))}")
        parts.append(examples(EXAMPLES.get(f"{name} {child}", ())))
    return "".join(parts) + exits() + see_also("skyctl(1)", "skyctl-settings(5)")


def settings_page() -> str:
    rows = [
        (
            " or ".join(setting.variables),
            f"{setting.key}: {setting.meaning}." + (f" Default: {setting.default}." if setting.default else ""),
        )
        for setting in TABLE
    ]
    return (
        head("skyctl-settings", 5, "settings of skyctl")
        + f".SH DESCRIPTION\n{paragraphs(help_pages.ORDER)}.SH SETTINGS\n{listed(rows)}"
        + see_also("skyctl(1)")
    )


def agents_page() -> str:
    parser = agent._parser()
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {action.dest: action.help or "" for action in commands._choices_actions}
    parts = [head("skyagent", 8, parser.description or "")]
    parts.append(
        f".SH SYNOPSIS\n.B skyagent\n{escaped('[OPTIONS] [COMMAND]')}\n.SH OPTIONS\n{options(parser)}.SH COMMANDS\n"
    )
    for name, child in commands.choices.items():
        parts.append(f".SS {escaped(child.prog)}\n{paragraphs(summaries[name])}{options(child)}")
    parts.append(".SH CONFIGURATION\nThe fields of FILE, a JSON object, and the variables that stand over them:\n")
    return "".join(parts) + listed(VARIABLES.items()) + ".SH EXIT STATUS\n" + listed(AGENT_ENDS) + see_also("skyctl(1)")


def options(parser: argparse.ArgumentParser) -> str:
    rows = []
    for action in parser._actions:
        if action.option_strings:
            choices = f"{{{','.join(action.choices)}}}" if action.choices else ""
            value = "" if action.nargs == 0 else f" {action.metavar or choices or action.dest.upper()}"
            rows.append((", ".join(action.option_strings) + value, action.help or ""))
    return listed(rows)


def pages() -> dict[str, str]:
    """Every page by its file's name."""
    program = app.program()
    root = program.context_class(program, info_name="skyctl", **program.context_settings)
    found = {"skyctl.1": main_page(root), "skyctl-settings.5": settings_page(), "skyagent.8": agents_page()}
    for name, context in children(root):
        if name not in IN_THE_MAIN_PAGE:
            make = page_of_group if hasattr(context.command, "commands") else page_of_command
            found[f"skyctl-{name}.1"] = make(name, context)
    return found
