"""What the agent tells of volumes without a name: those of containers of the swarm, of which no service says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest

from skyctl.api.http_protocol import MAX_HEARTBEAT_BYTES
from tests.agent.peers import DRIP_HEADERS, HANG, Answer, Engine, Manager
from tests.agent.process import Agent

Start = Callable[..., Agent]
WEB, DB = "w" * 25, "d" * 25
ANONYMOUS = "0123456789abcdef" * 4


def volume(path: object = "/data", name: object = ANONYMOUS, **more: object) -> dict[str, object]:
    return {"Type": "volume", "Name": name, "Destination": path, "Driver": "local", "RW": True, **more}


def container(service: object, *mounts: object) -> dict[str, Any]:
    return {"Id": "c", "Labels": {"com.docker.swarm.service.id": service}, "Mounts": list(mounts)}


def told(manager: Manager, wanted: dict[str, list[str]]) -> None:
    found = manager.requests.await_some(lambda request: (request.body or {}).get("imageVolumes") == wanted)
    assert found, [request.body.get("imageVolumes") for request in manager.heartbeats(1)]


def test_it_tells_of_volumes_without_a_name_by_service_and_path(manager: Manager, engine: Engine, start: Start) -> None:
    engine.containers = Answer(
        200,
        [
            container(WEB, volume("/data"), volume("/cache")),
            container(WEB, volume("/data", "f" * 64)),
            container(DB, volume("/named", "pg"), {"Type": "bind", "Source": "/srv", "Destination": "/srv"}),
        ],
    )
    start(apiUrl=manager.url)
    told(manager, {WEB: ["/cache", "/data"]})
    [asked, *_] = [request.path for request in engine.requests.all() if request.path != "/info"]
    assert unquote(asked) == '/containers/json?filters={"label":["com.docker.swarm.service.id"]}'
    engine.containers = Answer(200, [])
    told(manager, {})


def test_what_is_no_such_volume_is_left_out(manager: Manager, engine: Engine, start: Start) -> None:
    engine.containers = Answer(
        200,
        [
            7,
            {},
            {"Labels": None, "Mounts": None},
            container(7, volume()),
            container("../odd", volume()),
            container("x" * 65, volume()),
            container(DB, 7, {}, *map(volume, (7, "data", "/a\nb", "/\ud800", "/\U000e0100", "/" + "x" * 255))),
            container(DB, volume(name=7), volume(name="F" * 64), volume() | {"Type": "bind"}),
            container(WEB, volume("/é")),
        ],
    )
    start(apiUrl=manager.url)
    told(manager, {WEB: ["/é"]})


def test_of_very_many_it_tells_the_first_and_says_so(manager: Manager, engine: Engine, start: Start) -> None:
    many = [container(f"s{number:03}", volume("/a"), volume("/b")) for number in range(80)]
    engine.containers = Answer(200, many)
    agent = start(apiUrl=manager.url)
    told(manager, {f"s{number:03}": ["/a", "/b"] for number in range(50)})
    assert "60 of 160" in agent.says("action=image_volumes_cut")[0]


def test_a_report_is_never_too_large_for_a_manager(manager: Manager, engine: Engine, start: Start) -> None:
    paths = [f"/{number}{'é' * 200}" for number in range(10, 60)]
    engine.containers = Answer(200, [container(WEB, *map(volume, paths))])
    agent = start(apiUrl=manager.url)
    agent.says("action=image_volumes_cut")
    [told] = manager.requests.await_some(lambda request: "imageVolumes" in (request.body or {}))
    assert told.body["imageVolumes"] == {WEB: paths[: len(told.body["imageVolumes"][WEB])]}
    assert MAX_HEARTBEAT_BYTES / 2 < int(told.headers["Content-Length"]) < MAX_HEARTBEAT_BYTES


@pytest.mark.parametrize("trouble", [HANG, DRIP_HEADERS, Answer(500, {"message": "no"}), Answer(200, {"no": "list"})])
def test_without_an_answer_it_says_nothing_and_all_else_goes_on(
    manager: Manager, engine: Engine, start: Start, trouble: Answer
) -> None:
    engine.containers = trouble
    start(apiUrl=manager.url)
    last = manager.requests.await_some(lambda request: request.body.get("containerCount") == 7, 5)[-1].body
    assert last["engineAnswers"] is True
    assert "imageVolumes" not in last


def test_a_list_that_is_too_long_is_said(manager: Manager, engine: Engine, start: Start) -> None:
    engine.containers = Answer(200, [container(WEB, volume()) | {"Id": "c" * 2**22}])
    agent = start(apiUrl=manager.url)
    assert "longer than 4 MiB" in agent.says("action=image_volumes_unknown")[0]


def test_what_it_knew_last_stands_while_nobody_answers(manager: Manager, engine: Engine, start: Start) -> None:
    engine.containers = Answer(200, [container(WEB, volume())])
    start(apiUrl=manager.url)
    told(manager, {WEB: ["/data"]})
    engine.end()
    gone = manager.requests.await_some(lambda request: request.body.get("engineAnswers") is False, 2)
    assert [request.body["imageVolumes"] for request in gone] == [{WEB: ["/data"]}] * 2
