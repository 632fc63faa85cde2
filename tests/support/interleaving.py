"""What happens at a chosen moment of somebody's work: an engine whose order is held back, and boundaries between the
transactions and the engine's calls."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import sqlalchemy as sa

from skyctl.operations.shared.context import Engine
from skyctl.store.db import Database
from tests.support.helpers import PATIENCE_SECONDS

ORDERS = {"find", "deploy", "move", "stop", "remove", "set_availability"}


class HeldBack:
    """An engine that is given the first deploy by its name only once `release` was called; `arrived` says that it
    waits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.arrived, self._released = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def deploy(self, *order: Any) -> str:
        self.arrived.set()
        assert self._released.wait(PATIENCE_SECONDS)
        return self._engine.deploy(*order)

    def until_arrived(self) -> None:
        assert self.arrived.wait(PATIENCE_SECONDS)

    def release(self) -> None:
        self._released.set()

    def engine(self) -> Engine:
        """Itself, as what it stands for."""
        return cast(Engine, self)


class Boundaries:
    """Counts the boundaries that are passed, and acts at one of them."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self.left, self._act = number, act

    def pass_by(self) -> None:
        self.left -= 1
        if self.left == 0:
            self._act()


class BoundedDatabase(Database):
    """A database with a boundary after each transaction that was committed."""

    boundaries: Boundaries

    @contextmanager
    def transaction(self, limit_seconds: float = 10) -> Iterator[sa.Connection]:
        with super().transaction(limit_seconds) as tx:
            yield tx
        self.boundaries.pass_by()


class BoundedEngine:
    """An engine with a boundary before and after each order, and each look at what an order is to change."""

    def __init__(self, engine: Engine, boundaries: Boundaries) -> None:
        self._engine, self._boundaries = engine, boundaries

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._engine, name)
        if name not in ORDERS:
            return method

        def bounded(*order: Any) -> Any:
            self._boundaries.pass_by()
            answer = method(*order)
            self._boundaries.pass_by()
            return answer

        return bounded

    def engine(self) -> Engine:
        """Itself, as what it stands for."""
        return cast(Engine, self)
