"""Files of services in YAML: each document is one service, read strictly, and every mistake has its line and column;
and files of their variables."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from skyctl.documents.manifest import FIELDS, VARIABLE
from skyctl.domain.errors import ValidationError

STANDARD_INPUT = Path("-")


class ServiceDocument(NamedTuple):
    """The fields of one service, and where they stand: the file, and which document where it holds several."""

    where: str
    fields: dict[str, Any]


def read(path: Path) -> list[ServiceDocument]:
    """Return the services of a file, or of standard input (`-`). Raises ValidationError."""
    name, text = _text(path)
    documents = [content for content in _parsed(name, text) if content is not None]
    several = len(documents) > 1
    found = [
        ServiceDocument(f"{name}, document {number}" if several else name, _checked(name, number, several, content))
        for number, content in enumerate(documents, 1)
    ]
    if not found:
        raise ValidationError(f"{name} holds no keys", f"keys: {', '.join(FIELDS)}")
    return found


def variables(path: Path) -> dict[str, str]:
    """Return the variables of a file of KEY=VALUE lines; empty lines and those that begin with # are passed over.

    Raises ValidationError, which never shows a line: it may hold a secret."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValidationError(f"{path} cannot be read: {reason}", "give a file of KEY=VALUE lines") from error
    values = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            key, equals, value = line.strip().partition("=")
            if not equals or not VARIABLE.fullmatch(key):
                raise ValidationError(f"{path}, line {number}: not KEY=VALUE", "one variable a line; # begins a remark")
            values[key] = value
    return values


def _text(path: Path) -> tuple[str, str]:
    name = "standard input" if path == STANDARD_INPUT else str(path)
    try:
        content = sys.stdin.buffer.read() if path == STANDARD_INPUT else path.read_bytes()
        return name, content.decode()
    except OSError as error:
        raise ValidationError(f"{name} cannot be read: {error.strerror}", "give a file with -f") from error
    except ValueError as error:
        raise ValidationError(f"{name} is not YAML: it is not UTF-8", "write it as `key: value` lines") from error


def _parsed(name: str, text: str) -> list[Any]:
    import yaml  # here, since few commands read one

    class Strict(yaml.SafeLoader):
        """A loader that takes no key twice."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            known = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in known:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!a} stands there already", key.start_mark
                    )
                known.add((key.tag, str(key.value)))
            return super().construct_mapping(node, deep)

    hint = "write it as `key: value` lines"
    try:
        return list(yaml.load_all(text, Strict))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValidationError(f"{name}{where}: {error.problem or error.context}", hint) from error
    except yaml.reader.ReaderError as error:
        line, column = _place(text, error.position)
        raise ValidationError(f"{name}, line {line}, column {column}: {error.reason}", hint) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValidationError(f"{name} is not YAML", hint) from error


def _place(text: str, position: int) -> tuple[int, int]:
    """The line and the column of a character, both from 1."""
    before = text[:position]
    return before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1


def _checked(name: str, number: int, several: bool, content: object) -> dict[str, Any]:
    where = f"{name}, document {number}" if several else name
    if not isinstance(content, dict):
        raise ValidationError(f"{where} holds no keys", f"keys: {', '.join(FIELDS)}")
    unknown = [str(key) for key in content if key not in FIELDS]
    if unknown:
        raise ValidationError(f"{where}: unknown key {unknown[0]!a}", f"known keys: {', '.join(FIELDS)}")
    return content
