"""Whatever happens at the same moment, the engine runs the deployment that was wanted last."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest

from skyctl.domain.cluster import Capacity
from skyctl.domain.drains import DrainOptions
from skyctl.domain.engine import EngineSpec
from skyctl.domain.errors import EngineConflict, EngineRefused, EngineUnavailable, LostLead, Refused
from skyctl.domain.workloads import ServiceSpec
from skyctl.operations.admin import deploy as deploy_admin
from skyctl.operations.admin import drains, services
from skyctl.operations.monitor import migrations as migrations_monitor
from skyctl.operations.monitor import services as services_monitor
from skyctl.operations.shared.context import Context, Engine
from tests.operations.test_migrations import fleet, pass_time
from tests.support.fleet import Fleet
from tests.support.helpers import PATIENCE_SECONDS, TESTS, look
from tests.support.interleaving import Boundaries, BoundedDatabase, BoundedEngine, HeldBack

__all__ = ["fleet"]

MOST_BOUNDARIES = 40


def deploy(context: Context, fleet: Fleet, image: str, name: str = "a") -> None:
    deploy_admin.deploy(context, TESTS, fleet.organization, ServiceSpec(name, image, Capacity(1, 512, 1)))


def images(fleet: Fleet) -> list[str]:
    return [service.image for service in fleet.engine.observe().services.values()]


class Away:
    """An engine that shows what it has, and then does not answer."""

    def __init__(self, fleet: Fleet) -> None:
        self.observe = fleet.engine.observe

    def __getattr__(self, name: str) -> Callable[..., None]:
        def away(*_: object) -> None:
            raise EngineUnavailable("away")

        return away


def interrupt(fleet: Fleet, image: str) -> None:
    """A deployment is written down, and its command killed before the engine hears of it."""
    context = replace(fleet.context, engine=lambda: cast(Engine, Away(fleet)))
    with pytest.raises(EngineUnavailable):
        deploy(context, fleet, image)


def settle_later(fleet: Fleet) -> None:
    pass_time(fleet, seconds=31)
    fleet.beat()
    fleet.engine.settle()
    fleet.settle()


@pytest.mark.parametrize("before", ["app:1", ""])
def test_an_older_deployment_does_not_overwrite_a_newer_one(fleet: Fleet, before: str) -> None:
    if before:
        fleet.deploy("a", to="w1")
    held = HeldBack(fleet.engine)
    with ThreadPoolExecutor(1) as pool:
        older = pool.submit(deploy, replace(fleet.context, engine=held.engine), fleet, "app:2")
        held.until_arrived()
        deploy(fleet.context, fleet, "app:3")
        held.release()
        error = older.exception()
    assert isinstance(error, Refused)
    assert error.exit_code == 4
    assert error.message == "a was deployed again, with app:3, before app:2 was"
    assert "skyctl services show a" in error.hint
    fleet.engine.settle()
    fleet.settle()
    assert images(fleet) == ["app:3"]
    assert (fleet.services()["a"].status, fleet.services()["a"].spec.image) == ("running", "app:3")
    deployments, _ = services.history(fleet.context, fleet.services()["a"].id)
    assert {each.image: each.status.value for each in deployments} == {
        "app:3": "running",
        "app:2": "stopped",
        **({"app:1": "stopped"} if before else {}),
    }


def test_the_monitor_does_not_resume_what_was_deployed_again_meanwhile(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    interrupt(fleet, "app:2")
    pass_time(fleet, seconds=31)
    held = HeldBack(fleet.engine)
    term = fleet.term()
    with ThreadPoolExecutor(1) as pool:
        slow = replace(term, context=replace(fleet.context, engine=held.engine))
        older = pool.submit(services_monitor.reconcile_services, slow, all_of_them=False)
        held.until_arrived()
        deploy(fleet.context, fleet, "app:3")
        held.release()
        older.result()
    fleet.beat()
    fleet.engine.settle()
    fleet.settle()
    assert images(fleet) == ["app:3"]
    assert fleet.services()["a"].status == "running"


def test_what_reached_the_engine_late_gives_way_to_what_was_restored(fleet: Fleet) -> None:
    """The newer one is refused while the older one is on its way: the engine has neither in the end."""
    fleet.deploy("a", to="w1")
    held = HeldBack(fleet.engine)
    with ThreadPoolExecutor(1) as pool:
        older = pool.submit(deploy, replace(fleet.context, engine=held.engine), fleet, "app:2")
        held.until_arrived()
        fleet.engine.refuses = "port 80 is taken"
        with pytest.raises(EngineRefused):
            deploy(fleet.context, fleet, "app:3")
        fleet.engine.refuses = ""
        held.release()
        assert isinstance(older.exception(), Refused)
    fleet.engine.settle()
    fleet.settle()
    assert images(fleet) == ["app:1"]
    assert (fleet.services()["a"].status, fleet.services()["a"].spec.image) == ("running", "app:1")


def test_an_engine_that_somebody_keeps_changing_is_left_to_the_monitor(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")

    class Busy:
        def __getattr__(self, name: str) -> object:
            return getattr(fleet.engine, name)

        def deploy(self, *_: object) -> str:
            raise EngineConflict("of another version by now")

    with pytest.raises(EngineConflict) as caught:
        deploy(replace(fleet.context, engine=lambda: cast(Engine, Busy())), fleet, "app:2")
    assert "deployed by the monitor" in caught.value.hint
    settle_later(fleet)
    assert images(fleet) == ["app:2"]


class Killed(BaseException):
    """The process is no more."""


def killed() -> None:
    raise Killed


def nothing() -> None:
    pass


@pytest.fixture
def bounded(fleet: Fleet, database_url: str) -> Iterator[Callable[[Boundaries], Context]]:
    """The context of a command that passes boundaries."""
    database = BoundedDatabase(database_url)

    def with_boundaries(boundaries: Boundaries) -> Context:
        database.boundaries, database.ahead = boundaries, fleet.context.db.ahead
        return replace(fleet.context, db=database, engine=BoundedEngine(fleet.engine, boundaries).engine)

    yield with_boundaries
    database.close()


@pytest.mark.parametrize("end", [nothing, killed])
@pytest.mark.parametrize("act", ["deploy", "remove", "drain", "resume"])
def test_at_every_boundary_of_a_deployment(
    fleet: Fleet, bounded: Callable[[Boundaries], Context], act: str, end: Callable[[], None]
) -> None:
    fleet.deploy("a", to="w1")
    source = ""

    def meanwhile() -> None:
        if act == "deploy":
            deploy(fleet.context, fleet, "app:newer")
        elif act == "remove":
            services.remove(fleet.context, fleet.services()["a"].id, TESTS)
        elif act == "drain":
            drains.drain(fleet.context, [fleet.ids[source]], TESTS)
            fleet.step()
        else:
            pass_time(fleet, seconds=31)
            fleet.beat()
            fleet.step()
        end()

    for number in range(1, MOST_BOUNDARIES):
        boundaries = Boundaries(number, meanwhile)
        image, source, error = f"app:{number + 1}", str(fleet.where()["a"]), None
        try:
            deploy(bounded(boundaries), fleet, image)
        except (Refused, Killed) as raised:
            error = raised
        if boundaries.left > 0:
            assert number > 6, "there are boundaries"
            return
        assert not isinstance(error, LostLead)
        settle_later(fleet)
        check(fleet, act, image, source, error)
        if act == "remove" and "a" not in fleet.services():
            fleet.deploy("a", to="w1")
        if act == "drain":
            drains.undrain(fleet.context, fleet.ids[source], TESTS)
            look(fleet.context)
            fleet.step()
    pytest.fail("a deployment that never ends")


def check(fleet: Fleet, act: str, image: str, source: str, error: BaseException | None) -> None:
    """The engine has what the database says, and that is what was wanted last."""
    ours = {name: service.spec.image for name, service in fleet.services().items()}
    assert images(fleet) == list(ours.values())
    if "a" in ours:
        assert fleet.services()["a"].status == "running"
    if act == "drain":
        assert fleet.where()["a"] != source
        assert fleet.running()["a"] == [fleet.where()["a"]]
    if isinstance(error, Refused):
        assert ours.get("a") != image
    elif error is None and act not in ("deploy", "remove"):
        assert ours["a"] == image


def test_a_force_stop_does_not_stop_what_was_deployed_at_that_moment(fleet: Fleet) -> None:
    fleet.deploy("a", to="w1")
    fleet.engine.unhealthy = {(fleet.nodes[name], "app:1") for name in ("w2", "w3")}
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions(deadline=timedelta(seconds=10), force=True))
    fleet.settle()
    pass_time(fleet, seconds=11)
    fleet.beat()
    boundaries = Boundaries(1, lambda: deploy(fleet.context, fleet, "app:2"))

    class Stopping(BoundedEngine):
        def __getattr__(self, name: str) -> object:
            return super().__getattr__(name) if name == "stop" else getattr(fleet.engine, name)

    stopping = replace(fleet.context, engine=Stopping(fleet.engine, boundaries).engine)
    migrations_monitor.reconcile_migrations(fleet.term())
    services_monitor.reconcile_services(replace(fleet.term(), context=stopping), all_of_them=True)
    assert boundaries.left < 0
    settle_later(fleet)
    assert (images(fleet), fleet.services()["a"].status) == (["app:2"], "running")


class Ordered:
    """An engine whose first `deploy` does what it does before or after the test lets it go on."""

    def __init__(self, fleet: Fleet, *, refuses: bool = False) -> None:
        self._engine, self._refuses = fleet.engine, refuses
        self.arrived, self.may_go_on = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Callable[..., object]:
        method: Callable[..., object] = getattr(self._engine, name)
        return method

    def deploy(self, spec: EngineSpec, version: int | None) -> str:
        service_id = "" if self._refuses else self._engine.deploy(spec, version)
        is_first = not self.arrived.is_set()
        self.arrived.set()
        assert self.may_go_on.wait(PATIENCE_SECONDS)
        if self._refuses:
            raise EngineRefused("port 80 is taken")
        return service_id if is_first else self._engine.deploy(spec, version)


def test_a_refusal_after_a_command_that_was_killed_leaves_the_restored_one(fleet: Fleet) -> None:
    """app:2 reaches the engine and its command is killed before it notes that; app:3 is refused."""
    fleet.deploy("a", to="w1")

    class Fatal(Away):
        def __init__(self, fleet: Fleet) -> None:
            self.observe, self.find = fleet.engine.observe, fleet.engine.find

        def deploy(self, spec: EngineSpec, version: int | None) -> str:
            fleet.engine.deploy(spec, version)
            raise Killed

    with pytest.raises(Killed):
        deploy(replace(fleet.context, engine=lambda: cast(Engine, Fatal(fleet))), fleet, "app:2")
    fleet.engine.refuses = "port 80 is taken"
    with pytest.raises(EngineRefused):
        deploy(fleet.context, fleet, "app:3")
    fleet.engine.refuses = ""
    settle_later(fleet)
    assert images(fleet) == [fleet.services()["a"].spec.image]
    assert fleet.services()["a"].status == "running"


def test_a_refusal_of_what_somebody_else_has_applied_changes_nothing(fleet: Fleet) -> None:
    """A command waits for the engine; the monitor applies its deployment meanwhile; then the command is refused."""
    fleet.deploy("a", to="w1")
    engine = Ordered(fleet, refuses=True)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(deploy, replace(fleet.context, engine=lambda: cast(Engine, engine)), fleet, "app:2")
        assert engine.arrived.wait(PATIENCE_SECONDS)
        settle_later(fleet)
        engine.may_go_on.set()
        assert isinstance(slow.exception(), EngineRefused)
    settle_later(fleet)
    assert images(fleet) == ["app:2"]
    assert (fleet.services()["a"].status, fleet.services()["a"].spec.image) == ("running", "app:2")


def test_a_late_note_leaves_a_newer_deployment_alone(fleet: Fleet) -> None:
    """app:2 is in the engine but not noted yet when app:3 is deployed, and runs."""
    fleet.deploy("a", to="w1")
    engine = Ordered(fleet)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(deploy, replace(fleet.context, engine=lambda: cast(Engine, engine)), fleet, "app:2")
        assert engine.arrived.wait(PATIENCE_SECONDS)
        deploy(fleet.context, fleet, "app:3")
        fleet.engine.settle()
        fleet.settle()
        engine.may_go_on.set()
        assert isinstance(late.exception(), Refused)
    assert fleet.services()["a"].status == "running", "it is not deployed once more"
    fleet.engine.settle()
    fleet.settle()
    assert images(fleet) == ["app:3"]
    deployments, _ = services.history(fleet.context, fleet.services()["a"].id)
    assert {each.image: each.status.value for each in deployments} == {
        "app:3": "running",
        "app:2": "stopped",
        "app:1": "stopped",
    }
