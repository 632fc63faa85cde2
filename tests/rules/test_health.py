"""Health: the table of the rule, row by row, and what would change a status."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyctl.domain.cluster import Capacity, HealthPolicy, Load, Outage, Worker
from skyctl.domain.states import WorkerStatus
from skyctl.rules import health
from tests.support.outages import OUTAGES, outages

NOW = datetime(2026, 11, 1, tzinfo=UTC)
POLICY = HealthPolicy()


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def away(seconds: float) -> dict[str, Any]:
    """An agent that has said for so long that its engine does not answer, and said so last a second ago."""
    return {"engine_away_since": ago(1 + seconds), "engine_away_seen_at": ago(1)}


def busy(*percents: float) -> dict[str, Any]:
    """The CPU of so many heartbeats, the latest first."""
    return {"recent_cpu": percents, "load": Load(percents[0], 0, 0)}


def worker(status: str = "active", silent: float | None = 1, load: Load | None = None, **facts: Any) -> Worker:
    heard = None if silent is None else NOW - timedelta(seconds=silent)
    return Worker(
        id=UUID(int=1),
        name="w",
        hostname="h",
        ip_address="10.0.0.1",
        status=WorkerStatus(status),
        capacity=Capacity(),
        load=load or Load(),
        created_at=NOW,
        updated_at=NOW,
        last_heartbeat_at=heard,
        **facts,
    )


@pytest.mark.parametrize(
    ("facts", "status", "reason"),
    [
        ({"silent": None, "status": "pending"}, "pending", "never heard"),
        ({"silent": 1, "status": "pending"}, "active", "within its limits"),
        ({"silent": 120}, "active", "within its limits"),
        ({"silent": 120.1}, "offline", "silent for 120.1 s > 120 s"),
        ({"silent": 1, "status": "offline"}, "active", ""),
        ({"load": Load(90, 95, 90)}, "active", ""),
        ({"load": Load(90.1, 0, 0)}, "unhealthy", "CPU 90.1 % > 90 %"),
        (busy(99), "active", "within its limits (CPU 99 % > 90 % for 1 of 2 heartbeats in a row)"),
        (busy(99, 10, 99, 99), "active", "for 1 of 2 heartbeats"),
        (busy(91, 99, 10), "unhealthy", "CPU 91 % > 90 %"),
        (busy(10, 99, 99), "active", "heard from, and within its limits"),
        (busy(99) | {"load": Load(99, 95.1, 0)}, "unhealthy", "memory 95.1 % > 95 %"),
        ({"load": Load(0, 95.1, 0)}, "unhealthy", "memory 95.1 % > 95 %"),
        ({"load": Load(0, 0, 100)}, "unhealthy", "disk 100 % > 90 %"),
        ({"load": Load(99, 99, 99)}, "unhealthy", "CPU 99 % > 90 %, memory 99 % > 95 %, disk 99 % > 90 %"),
        ({"load": Load(99, 0, 0), "status": "offline"}, "unhealthy", ""),
        ({"status": "unhealthy"}, "active", ""),
        ({"status": "draining"}, "draining", ""),
        ({"status": "draining", "load": Load(99, 99, 99)}, "draining", ""),
        ({"status": "draining", "silent": 121}, "offline", ""),
        ({"status": "offline", "drain_requested_at": NOW}, "draining", ""),
        ({"status": "active", "drain_requested_at": NOW}, "draining", ""),
        ({"status": "pending", "silent": None, "drain_requested_at": NOW}, "draining", ""),
        (away(60), "active", ""),
        (away(60.1), "unhealthy", "its engine does not answer, for 60.1 s > 60 s"),
        (
            away(61) | {"metadata": {"engineTrouble": "refused"}, "load": Load(99, 0, 0)},
            "unhealthy",
            "its engine does not answer, for 61 s > 60 s: refused",
        ),
        (away(5000) | {"silent": 0.5}, "active", ""),
        (away(61) | {"silent": 121}, "offline", ""),
        (away(61) | {"status": "draining"}, "draining", "its engine does not answer"),
        ({"node_down_since": ago(5000), "node_down_seen_at": ago(4940)}, "active", ""),
        (
            {"node_down_since": ago(5000), "node_down_seen_at": ago(4939), "swarm_node_id": "n1"},
            "unhealthy",
            "the swarm says that its node is down, for 61 s > 60 s",
        ),
        (
            {"node_down_since": ago(5000), "node_down_seen_at": ago(4939)},
            "unhealthy",
            "its host has left the swarm, for 61 s > 60 s",
        ),
        (busy(99) | {"status": "unhealthy"}, "unhealthy", "CPU 99 % > 90 %"),
        (busy(99) | {"status": "unhealthy", "engine_failed_at": NOW}, "active", "for 1 of 2 heartbeats"),
        ({"node_down_since": ago(99), "node_down_seen_at": ago(0), "silent": None, "status": "pending"}, "pending", ""),
        ({"stopped_at": NOW}, "offline", "on purpose"),
        ({"stopped_at": NOW - timedelta(seconds=5)}, "active", ""),
        ({"stopped_at": NOW, "silent": None}, "offline", "on purpose"),
    ],
)
def test_each_row_of_the_table(facts: dict[str, Any], status: str, reason: str) -> None:
    verdict = health.assess(worker(**facts), NOW, [], POLICY)
    assert verdict.status == status
    assert reason in verdict.reason


def test_who_is_unhealthy_for_another_reason_now_is_news() -> None:
    known: dict[str, Any] = {"status": "unhealthy", "concluded_status": WorkerStatus.UNHEALTHY}
    exhausted, without_engine = worker(load=Load(99, 0, 0), **known), worker(engine_failed_at=NOW, **known)
    facts = (exhausted, worker(**away(61)))
    by_load, by_engine = (health.assess(each, NOW, [], POLICY) for each in facts)
    assert [health.is_news_of(exhausted, each) for each in (by_load, by_engine)] == [False, True]
    assert [health.is_news_of(without_engine, each) for each in (by_load, by_engine)] == [True, False]


def test_what_the_panel_wrote_is_set_right_and_no_news_to_people() -> None:
    drained = worker(drain_requested_at=NOW, concluded_status=WorkerStatus.DRAINING)
    back = worker(concluded_status=WorkerStatus.OFFLINE)
    new = worker()
    for of, is_news, is_to_be_told in ((drained, True, False), (back, True, True), (new, True, False)):
        verdict = health.assess(of, NOW, [], POLICY)
        assert (health.is_news_of(of, verdict), health.is_to_be_told(of, verdict)) == (is_news, is_to_be_told)


def test_nobody_comes_back_by_an_outage_that_began_a_moment_before_it_went_offline() -> None:
    outage = Outage(NOW - timedelta(seconds=61), NOW)
    lost = worker("offline", silent=181, status_changed_at=NOW - timedelta(seconds=60.5))
    assert health.assess(lost, NOW, [outage], POLICY).status == "offline"
    assert health.assess(worker(silent=180), NOW, [outage], POLICY).status == "active"
    back = worker("offline", silent=59, status_changed_at=NOW - timedelta(seconds=60.5))
    assert health.assess(back, NOW, [outage], POLICY).status == "active"


@pytest.mark.parametrize(
    ("facts", "changes"),
    [
        ({"silent": 121}, ["a heartbeat brings it back"]),
        ({"stopped_at": NOW, "silent": None}, ["a heartbeat brings it back"]),
        ({"silent": None, "status": "pending"}, ["active, by its first heartbeat"]),
        (
            {"silent": 20, "drain_requested_at": NOW},
            ["offline, if it stays silent for 100 s more", "back in service, by `skyctl workers undrain`"],
        ),
        ({"silent": None, "drain_requested_at": NOW}, ["back in service, by `skyctl workers undrain`"]),
        (
            {"silent": 120, "load": Load(91, 10, 99)},
            ["offline, if it stays silent for 0 s more", "active, by a heartbeat with CPU ≤ 90 % and disk ≤ 90 %"],
        ),
        (
            {"silent": 20},
            [
                "offline, if it stays silent for 100 s more",
                "unhealthy, by a heartbeat with memory > 95 % or disk > 90 %, or by 2 in a row with CPU > 90 %",
            ],
        ),
        (
            {"silent": 20, **busy(99, 10)},
            [
                "offline, if it stays silent for 100 s more",
                "unhealthy, by a heartbeat with CPU > 90 %, memory > 95 % or disk > 90 %",
            ],
        ),
    ],
)
def test_what_would_change_a_status(facts: dict[str, Any], changes: list[str]) -> None:
    assert health.outlook(worker(**facts), NOW, [], POLICY) == changes


def test_our_outages_put_off_what_would_change() -> None:
    [silent, _] = health.outlook(worker(silent=620), NOW, outages(NOW, [(10, 600)]), POLICY)
    assert silent == "offline, if it stays silent for 100 s more"


@given(silent=st.integers(0, 2000), timeout=st.integers(1, 300), spans=OUTAGES)
def test_the_cutoff_is_where_heard_silence_is_the_timeout(
    silent: int, timeout: int, spans: list[tuple[int, int]]
) -> None:
    ours, since, limit = outages(NOW, spans), NOW - timedelta(seconds=silent), timedelta(seconds=timeout)
    assert (since < health.cutoff(NOW, ours, limit)) == (health.heard_silence(since, NOW, ours) > limit)


def test_silence_counts_only_while_somebody_could_have_heard() -> None:
    ten_minutes = outages(NOW, [(10, 600), (300, 100)])
    for silent, status in ((620, "active"), (720, "active"), (721, "offline")):
        assert health.assess(worker(silent=silent), NOW, ten_minutes, POLICY).status == status
    reason = health.assess(worker(silent=721), NOW, ten_minutes, POLICY).reason
    assert reason == "silent for 121 s > 120 s"
