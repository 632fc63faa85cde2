"""What keeps data on its node, and how a service is therefore moved."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import EngineService, EngineTask, HostPort, Mount, Requirements
from skyctl.domain.states import EndpointMode
from skyctl.rules import local_state
from skyctl.rules.local_state import Moving, Way

TASK = EngineTask("t", "n1", "running", "running", "", None, "", datetime(2026, 1, 1, tzinfo=UTC))
NFS = {"type": "nfs", "o": "addr=10.0.0.1,rw", "device": ":/export"}


def bind(source: str, *, read_only: bool = False) -> Mount:
    return Mount("bind", source, "/data", read_only)


def volume(source: str = "data", **options: str) -> Mount:
    return Mount("volume", source, "/data", options=options)


def of_driver(driver: str, *, read_only: bool = False) -> Mount:
    return Mount("volume", "data", "/data", read_only, driver)


def service(*mounts: Mount, label: str | None = None, **more: Any) -> EngineService:
    labels = {} if label is None else {"skyctl.move": label}
    return EngineService("1", "shop", 7, "app:1", labels, None, 1, EndpointMode.VIP, Capacity(), mounts=mounts, **more)


KEPT = [bind("/srv/data"), volume(), of_driver("local"), volume(""), of_driver("", read_only=True)]
KEPT += [volume(type="none", o="bind", device="/srv"), volume(type="ext4", device="/dev/sdb1")]
KEPT += [bind("/runner/data"), bind("/")]
NOT_KEPT = [
    bind("/etc/localtime", read_only=True),
    bind("/srv/site", read_only=True),
    bind("/var/run/docker.sock"),
    bind("/run/docker.sock"),
    bind("/dev/net/tun"),
    volume(type="tmpfs", device="tmpfs"),
    Mount("tmpfs", "", "/tmp"),
    Mount("npipe", r"\\.\pipe\docker_engine", r"\\.\pipe\docker_engine"),
]
SHARED = [volume(**NFS), of_driver("rexray/ebs"), volume(type="cifs"), volume("", o="rw,addr=10.0.0.1")]
SHARED += [Mount("cluster", "group:disks", "/data")]
READ = [volume(**NFS | {"o": "addr=10.0.0.1,ro"}), of_driver("nfs", read_only=True)]


@pytest.mark.parametrize("mount", KEPT, ids=str)
def test_it_keeps_data_on_its_node(mount: Mount) -> None:
    assert local_state.kept(service(mount)) == [mount]
    assert local_state.shared(service(mount)) == []
    assert local_state.moving(service(mount)) == Moving(Way.STAYS, f"it keeps data on its node: {mount.place}")


@pytest.mark.parametrize("mount", [*NOT_KEPT, *READ], ids=str)
def test_it_neither_keeps_data_nor_shares_what_is_written(mount: Mount) -> None:
    assert local_state.kept(service(mount)) == local_state.shared(service(mount)) == []
    assert local_state.moving(service(mount)) == Moving(Way.START_FIRST, "two containers run for some seconds")


@pytest.mark.parametrize("mount", SHARED, ids=str)
def test_both_containers_would_write_to_it(mount: Mount) -> None:
    assert local_state.kept(service(mount)) == []
    assert local_state.shared(service(mount)) == [mount]
    assert local_state.moving(service(mount)).way is Way.STOP_FIRST


def test_a_port_of_its_node_is_no_reason_to_stay() -> None:
    published = Requirements(host_ports=(HostPort(8080),))
    assert local_state.moving(service(requirements=published)).way is Way.START_FIRST
    assert local_state.moving(service(volume(), requirements=published)).way is Way.STAYS


LEFT = "; what it keeps on its node stays behind: data"


@pytest.mark.parametrize(
    ("label", "mounts", "way", "reason"),
    [
        ("start-first", [], Way.START_FIRST, "its label skyctl.move says start-first"),
        ("stop-first", [], Way.STOP_FIRST, "its label skyctl.move says stop-first"),
        (" stop-first ", [], Way.STOP_FIRST, "its label skyctl.move says stop-first"),
        ("never", [], Way.STAYS, "its label skyctl.move says never"),
        ("start-first", [volume(**NFS)], Way.START_FIRST, "its label skyctl.move says start-first"),
        ("start-first", [volume()], Way.START_FIRST, f"its label skyctl.move says start-first{LEFT}"),
        ("stop-first", [volume()], Way.STOP_FIRST, f"its label skyctl.move says stop-first{LEFT}"),
        ("stays", [], Way.STAYS, "its label skyctl.move is 'stays', not start-first, stop-first or never"),
        ("Never", [], Way.STAYS, "its label skyctl.move is 'Never', not start-first, stop-first or never"),
        ("", [], Way.STAYS, "its label skyctl.move is '', not start-first, stop-first or never"),
    ],
)
def test_its_label_wins(label: str, mounts: list[Mount], way: Way, reason: str) -> None:
    assert local_state.moving(service(*mounts, label=label)) == (way, reason)


def test_what_an_image_declares_keeps_data_where_agents_of_its_nodes_tell_of_it() -> None:
    one = replace(service(volume(), label=None), node_id="n1")
    told = {"n1": {"1": ["/var/lib/pg", "/data/", "/data"], "2": ["/x"]}, "n2": {"1": ["/elsewhere"]}}
    known = local_state.with_image_volumes(one, told)
    declared = Mount("volume", "", "/var/lib/pg", of_image_on=frozenset({"n1"}))
    assert known.mounts == (volume(), declared), "what the service says itself is not said twice"
    stays = "it keeps data on its node: data, /var/lib/pg (a volume of its image)"
    assert local_state.moving(known) == (Way.STAYS, stays)
    left = "what it keeps on its node stays behind: data, /var/lib/pg (a volume of its image)"
    assert local_state.left_behind(known) == left
    assert local_state.with_image_volumes(one, {"n2": told["n2"]}) is one
    ended = service(tasks=[replace(TASK, state="shutdown"), replace(TASK, node_id="n3")])
    assert local_state.with_image_volumes(ended, told) is ended, "where it was once, nobody says anything of it"
    spread = service(tasks=[TASK, replace(TASK, node_id="n2"), replace(TASK, node_id=None)])
    of_both = local_state.with_image_volumes(spread, told)
    assert [mount.target for mount in of_both.mounts] == ["/data", "/elsewhere", "/var/lib/pg"]
    off = {
        node_id: [mount.target for mount in local_state.leaving(of_both, node_id).mounts] for node_id in ("n1", "n2")
    }
    assert off == {"n1": ["/data", "/var/lib/pg"], "n2": ["/elsewhere"]}, "a host holds back what leaves it, no more"


@pytest.mark.parametrize("own", [Mount("tmpfs", "", "/data"), volume(**NFS), bind("/srv", read_only=True)], ids=str)
def test_what_a_service_mounts_over_a_volume_of_its_image_takes_its_place(own: Mount) -> None:
    one = service(own, tasks=[TASK])
    assert local_state.with_image_volumes(one, {"n1": {"1": ["/data"]}}) is one


def test_of_very_many_volumes_some_are_named() -> None:
    """An agent may tell of many, and each is said in reasons, events and alerts."""
    paths = [f"/{number:02}" for number in range(25)]
    known = local_state.with_image_volumes(service(tasks=[TASK]), {"n1": {"1": paths}})
    assert local_state.left_behind(known).endswith("/19 (a volume of its image) and 5 more")


def test_local_data_may_be_left_behind() -> None:
    moving = local_state.moving(service(volume()), moves_local_data=True)
    assert moving == (Way.START_FIRST, f"two containers run for some seconds{LEFT}")
    both = local_state.moving(service(volume(), volume("share", **NFS)), moves_local_data=True)
    assert both == (Way.STOP_FIRST, f"two containers would write to share{LEFT}")
    assert local_state.moving(service(volume(), label="never"), moves_local_data=True).way is Way.STAYS
