"""Submodules that are imported when they are first used, so that a command loads only what it needs."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType


def submodules(package: str) -> Callable[[str], ModuleType]:
    """A package's `__getattr__` (PEP 562): `package.name` imports the submodule `name`.

    For type checkers, the package names its submodules under `if TYPE_CHECKING`. Raises AttributeError where there is
    none.
    """

    def load(name: str) -> ModuleType:
        try:
            return import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":
                raise
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None

    return load
