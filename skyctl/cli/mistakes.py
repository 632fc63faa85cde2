"""What was typed wrongly, in our own words: those of the parser's libraries name their types and their own rules."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import typer
from typer._click.exceptions import BadOptionUsage, MissingParameter, NoSuchOption

from skyctl.cli import foreign
from skyctl.domain.errors import InvalidValue, ValidationError

_TOO_MANY = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((?P<words>.*)\)", re.DOTALL)
_WRONG = re.compile(
    r"Invalid value[^:]*: (?P<value>.+) is not (?:a valid (?:int|float)|one of|in the range)", re.DOTALL
)
_NEEDS_VALUE = re.compile(r"Option '(?P<option>[^']+)' requires")


def in_words(error: typer.TyperException) -> tuple[str, str]:
    """Return what to say of an error of the parser: the message, and the hint."""
    context, message = getattr(error, "ctx", None), error.format_message()
    see = f"see `{context.command_path if context else 'skyctl'} --help`"
    if isinstance(error, MissingParameter):
        return f"{_typed(error.param)} is missing", see
    if isinstance(error, NoSuchOption):
        near = f"did you mean {' or '.join(error.possibilities)}? " if error.possibilities else ""
        return f"there is no option {error.option_name}", f"{near}{see}"
    if isinstance(error, typer.BadParameter) and error.param is not None and (wrong := _WRONG.match(message)):
        invalid = _invalid(error.param, wrong["value"])
        return invalid.message, invalid.hint
    if isinstance(error, BadOptionUsage) and (lacking := _NEEDS_VALUE.match(message)):
        return f"{lacking['option']} needs a value", see
    if many := _TOO_MANY.match(message):
        return f"{many['words']}: one word too many", see
    return message, see


def unknown_command(path: str, words: Sequence[str], commands: Iterable[str]) -> ValidationError:
    """Return the error for words behind `path` that are no command; it names the one that was meant, as far as that can
    be guessed."""
    typed = f"{path} {words[0]}"
    near = get_close_matches(words[0], commands)
    if (ours := foreign.ours([*path.split()[1:], *words])) and words[0] not in commands:
        hint = f"here that is `{ours}`"
    elif near:
        hint = f"did you mean {' or '.join(f'`{path} {each}`' for each in near)}?"
    else:
        hint = f"see `{path} --help`"
    return ValidationError(f"there is no command `{typed}`", hint)


def _typed(parameter: Any) -> str:
    """Return how a parameter is typed: the option's long name, or the argument's."""
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    return str(parameter.metavar or parameter.name).removesuffix("...").upper()


def _invalid(parameter: Any, value: str) -> InvalidValue:
    """Return the error for a value, quoted or a number, that the parser did not take, by what the parameter is."""
    kind = parameter.type
    if kind.name == "choice":
        accepted = f"one of {', '.join(str(getattr(choice, 'value', choice)) for choice in kind.choices)}"
    else:
        number = "a number" if kind.name.startswith("float") else "a whole number"
        bounds = (("from", getattr(kind, "min", None)), ("to", getattr(kind, "max", None)))
        accepted = " ".join([number, *(f"{word} {bound}" for word, bound in bounds if bound is not None)])
    shown = value if value[0] in "'\"" else f"'{value}'"
    return InvalidValue(_typed(parameter), shown[:60], accepted)
