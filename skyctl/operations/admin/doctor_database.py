"""What the doctor asks the database: each check by its name, in a transaction of its own."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from skyctl.domain.checks import Check, CheckState
from skyctl.domain.states import WorkerStatus
from skyctl.domain.text import ago, clock_offset, reference, span
from skyctl.store import alerts, counts, db, doctor, health, leases, outages, schema
from skyctl.store.tables import SCHEMA_VERSION

NAMED = 5
WORKER_CLOCK_WARNS = timedelta(seconds=30)
PASS_FAILS = timedelta(seconds=90)  # three of the monitor's intervals
SERVE_FAILS = timedelta(seconds=10)
STEP_WARNS = timedelta(seconds=1)
TOKEN_WARNS = timedelta(days=30)
PENDING_WARNS = timedelta(hours=1)
LARGE_FLEET = 10_000
# What a large fleet needs of PostgreSQL's settings, docs/operations.md has the figures.
FOR_LARGE_FLEETS = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
}

USE_TLS = "`skyctl tls init`, an https:// SKYCTL_API_URL, and a new install script on these hosts"
SET_CLOCK = "synchronize it: timedatectl set-ntp true"
RUN_SERVE = "start `skyctl serve`, and see its log; meanwhile silence does not count, and no worker turns offline"
RUN_FIRST_SERVE = (
    "start `skyctl serve`, unless the panel's own API hears the workers; until then, silence counts in full"
)
RUN_MONITOR = "start `skyctl monitor` under systemd, or `skyctl monitor --once` from cron, and see its log"
ON_THE_HOST = "on the host: systemctl status skypanel-worker, journalctl -u skypanel-worker"

OK, WARNING, FAILED = CheckState.OK, CheckState.WARNING, CheckState.FAILED


def _schema(tx: db.Transaction) -> Check:
    version, missing = schema.version(tx), schema.missing(tx)
    if missing or (version or 0) < SCHEMA_VERSION:
        lacks = f"; it lacks {_listed(len(missing), missing)}" if missing else ""
        finding = f"version {version or 'none'}, {SCHEMA_VERSION} is needed{lacks}"
        return Check("schema", FAILED, finding, "run `skyctl db init`")
    if version and version > SCHEMA_VERSION:
        return Check(
            "schema", WARNING, f"version {version}, newer than this skyctl's {SCHEMA_VERSION}", "upgrade skyctl"
        )
    return Check("schema", OK, f"version {version}, complete")


def _settings(tx: db.Transaction) -> Check:
    name, workers = "database settings", counts.workers_in_all(tx)
    if workers < LARGE_FLEET:
        return Check(name, OK, f"PostgreSQL's own do for fewer than {LARGE_FLEET:,} workers")
    untouched = doctor.at_defaults(tx, list(FOR_LARGE_FLEETS))
    if not untouched:
        return Check(name, OK, f"none that {workers:,} workers need is at PostgreSQL's default")
    finding = (
        f"at PostgreSQL's default for {workers:,} workers: {', '.join(untouched)}; heartbeats cost more than need be"
    )
    orders = "; ".join(f"ALTER SYSTEM SET {each} = '{FOR_LARGE_FLEETS[each]}'" for each in untouched)
    begun = "a restart of PostgreSQL" if "shared_buffers" in untouched else "SELECT pg_reload_conf()"
    return Check(name, WARNING, finding, f"as its superuser, what its machine has room for: {orders}; then {begun}")


def _monitor(tx: db.Transaction) -> Check:
    lease, now = leases.latest(tx), db.now(tx)
    if lease is None or lease.last_pass_at is None:
        return Check("monitor", FAILED, "no monitor has ever looked at the workers", RUN_MONITOR)
    who = f"{lease.holder.rpartition(':')[0]} {'leads' if lease.leads else 'led last,'} in term {lease.term}"
    finding = f"{who}; last pass {_ago(now, lease.last_pass_at)}"
    if abs(now - lease.last_pass_at) > PASS_FAILS:
        return Check("monitor", FAILED, finding, RUN_MONITOR)
    if not lease.leads:
        return Check("monitor", WARNING, f"{finding}: none leads now", RUN_MONITOR)
    return Check("monitor", OK, finding)


def _serve(tx: db.Transaction) -> Check:
    seen_at, now = outages.last_seen_at(tx), db.now(tx)
    if seen_at is None:
        state = FAILED if counts.workers_in_all(tx) else WARNING
        return Check("serve", state, "none has ever run", RUN_FIRST_SERVE)
    finding = f"last sign of life {_ago(now, seen_at)}"
    if abs(now - seen_at) > SERVE_FAILS:
        return Check("serve", FAILED, finding, RUN_SERVE)
    return Check("serve", OK, finding)


def _ago(now: datetime, at: datetime) -> str:
    """Say how long ago something was; who runs sets right what is ahead of a clock that was set back."""
    return ago(now, at) if at <= now + STEP_WARNS else f"{span(at - now)} ahead: the database's clock was set back"


def _tokens(tx: db.Transaction) -> Check:
    now = db.now(tx)
    expired, expiring = doctor.tokens_expired(tx, NAMED), doctor.tokens_expiring(tx, TOKEN_WARNS, NAMED)
    group = doctor.tokens_of_shared_key(tx, NAMED)
    shared = _named(f"{group.size} signed by the administrators' secret", group, _successor)
    if not (expired.size or expiring.size):
        none = f"none expires within {TOKEN_WARNS.days} days"
        return Check("tokens", OK, f"{none}; {shared}" if shared else none)
    findings = (
        _named("expired", expired, lambda at: ago(now, at)),
        _named("expire soon", expiring, lambda at: f"in {span(at - now)}"),
        shared,
    )
    invite = "invite these hosts again: skyctl workers install-script"
    return Check("tokens", FAILED if expired.size else WARNING, "; ".join(filter(None, findings)), invite)


def _successor(takes_another: bool) -> str:
    return "gets another" if takes_another else "its agent takes no other"


def _transport(tx: db.Transaction) -> Check:
    plain = doctor.over_plain_http(tx, NAMED)
    if not plain.size:
        return Check("transport", OK, "no worker says that it reports over plain HTTP")
    finding = f"over plain HTTP: {_named('', plain, str)}: these take no upgrades and no new tokens"
    return Check("transport", WARNING, finding, USE_TLS)


def _worker_clocks(tx: db.Transaction) -> Check:
    off = doctor.clocks_off(tx, WORKER_CLOCK_WARNS, NAMED)
    if not off.size:
        return Check("worker clocks", OK, f"none was more than {WORKER_CLOCK_WARNS.seconds} s off when it registered")
    differences = _named("", off, clock_offset)
    return Check(
        "worker clocks",
        WARNING,
        f"{differences}, against the database's",
        f"on the host, {SET_CLOCK}; health does not depend on it",
    )


def _offline(tx: db.Transaction) -> Check:
    now, group = db.now(tx), doctor.of_status(tx, WorkerStatus.OFFLINE, NAMED)
    return _sick("workers offline", group, lambda at: f"heard {ago(now, at)}" if at else "never heard")


def _unhealthy(tx: db.Transaction) -> Check:
    now, group = db.now(tx), doctor.of_status(tx, WorkerStatus.UNHEALTHY, NAMED)
    return _sick("workers unhealthy", group, lambda at: f"heard {ago(now, at)}" if at else "never heard")


def _engines(tx: db.Transaction) -> Check:
    now, group = db.now(tx), doctor.without_engine(tx, NAMED)
    return _sick("workers' engines", group, lambda at: f"failed {ago(now, at)}")


def _pending(tx: db.Transaction) -> Check:
    now, group = db.now(tx), doctor.pending_for(tx, PENDING_WARNS, NAMED)
    return _sick("workers pending", group, lambda at: f"invited {ago(now, at)}")


def _sick(name: str, group: doctor.Group, describe: Callable[[Any], str]) -> Check:
    if not group.size:
        return Check(name, OK, "none")
    first = group.first[0]
    why = f"skyctl workers why {reference(first.name, first.id)}"
    return Check(name, WARNING, _named("", group, describe), f"{ON_THE_HOST}; here: {why}")


def _mass_failures(tx: db.Transaction) -> Check:
    now, open_failures = db.now(tx), health.open_mass_failures(tx)
    if not open_failures:
        return Check("mass failures", OK, "none")
    regions = [
        f"{mass.silent} workers{f' of {mass.region}' if mass.region else ''} failed {ago(now, mass.detected_at)}"
        for mass in open_failures
    ]
    remedy = "see the network and the hosts; it ends when they return, or by `skyctl migrations resume`"
    return Check("mass failures", WARNING, f"{_listed(len(regions), regions)}: automatic moves are held", remedy)


def _alerts(tx: db.Transaction) -> Check:
    troubles = alerts.troubles(tx)
    if not troubles:
        return Check("alerts", OK, "none waits at a channel that fails")
    bad = [f"{name}: {failing} failing, {given_up} given up: {error}" for name, failing, given_up, error in troubles]
    return Check("alerts", WARNING, _listed(len(bad), bad), "see SKYCTL_ALERT_CHANNELS, then try: skyctl alerts test")


def _named(what: str, group: doctor.Group, describe: Callable[[Any], str]) -> str:
    """Return a group in words, its first workers by name; empty where there are none."""
    if not group.size:
        return ""
    members = [f"{member.name} ({describe(member.figure)})" for member in group.first]
    return f"{what}: {_listed(group.size, members)}" if what else _listed(group.size, members)


def _listed(count: int, first: Sequence[str]) -> str:
    """Return the first of `count` names, and how many more there are."""
    more = count - len(first[:NAMED])
    return ", ".join(first[:NAMED]) + (f" and {more} more" if more > 0 else "")


# By name, in the order in which they are shown.
CHECKS: dict[str, Callable[[db.Transaction], Check]] = {
    "schema": _schema,
    "database settings": _settings,
    "monitor": _monitor,
    "serve": _serve,
    "tokens": _tokens,
    "transport": _transport,
    "worker clocks": _worker_clocks,
    "workers offline": _offline,
    "workers unhealthy": _unhealthy,
    "workers' engines": _engines,
    "workers pending": _pending,
    "mass failures": _mass_failures,
    "alerts": _alerts,
}
