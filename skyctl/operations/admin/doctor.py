"""Check every part of the installation, each for itself: what is not well, and what to do about it."""

import stat
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import perf_counter
from uuid import UUID

from skyctl.domain.addresses import is_loopback
from skyctl.domain.checks import Check, CheckState
from skyctl.domain.errors import EngineRefused, EngineUnavailable, SchemaMissing, SkyctlError
from skyctl.domain.text import ago, clock_offset, quoted, span
from skyctl.host import data_dir, http_probe, keyring, owners
from skyctl.host.certificates import REPLACE_AUTHORITY, is_due
from skyctl.operations.admin import doctor_nodes, doctor_retention, doctor_services, doctor_transport
from skyctl.operations.admin.doctor_database import CHECKS, NAMED, SET_CLOCK
from skyctl.operations.shared.context import DoctorInputs, Engine
from skyctl.rules import transport
from skyctl.store import db, installation

ROUNDS = 3
CLOCKS_AGREE = timedelta(seconds=0.1)
CLOCK_WARNS, CLOCK_FAILS = timedelta(seconds=2), timedelta(seconds=30)
API_SECONDS = 5.0

REPLACE_WEAK = "whoever guesses it is administrator: give the panel another one (openssl rand -hex 32)"
SEE_SERVE = "see the log of that `skyctl serve`, and its SKYCTL_DATABASE_URL"

OK, WARNING, FAILED = CheckState.OK, CheckState.WARNING, CheckState.FAILED


def examine(inputs: DoctorInputs) -> list[Check]:
    """Make every check. What depends on a part that is away is reported as not known, and does not fail by itself."""
    in_database, installation_id = _in_database(inputs)
    return [
        doctor_transport.settings(inputs.settings_concerns()),
        _data_folder(inputs),
        _signing_secret(inputs.kept_secret, inputs.weak_secrets),
        *in_database,
        doctor_nodes.examine(inputs),
        doctor_services.examine(inputs),
        _certificate(inputs),
        _api(inputs, installation_id),
        _engine(inputs.engine(), FAILED if inputs.docker_host else WARNING),
        doctor_transport.engine(inputs),
    ]


def is_healthy(checks: list[Check]) -> bool:
    """Tell whether nothing failed; warnings do not count."""
    return all(check.state is not FAILED for check in checks)


def _data_folder(inputs: DoctorInputs) -> Check:
    if not inputs.keeps_database and inputs.kept_secret is None:
        return Check("data folder", OK, "not needed: database and signing secret were set")
    try:
        is_there = data_dir.check(inputs.data_dir)
    except SkyctlError as error:
        return Check("data folder", FAILED, error.message, error.hint)
    state = "" if is_there else " will be made when it is needed"
    return Check("data folder", OK, f"{inputs.data_dir}{state}")


def _signing_secret(kept: Path | None, weak: Mapping[str, str]) -> Check:
    name = "signing secret"
    if kept is None:
        guessed = [f"{variable} can be guessed: {why}" for variable, why in weak.items()]
        return Check(name, FAILED, "; ".join(guessed), REPLACE_WEAK) if weak else Check(name, OK, "was set")
    try:
        status = kept.stat()
    except FileNotFoundError:
        return Check(name, OK, f"{kept} will be made when it is needed")
    except OSError as error:
        whose, remedy = owners.kept_out(kept)
        return Check(name, FAILED, f"{kept} cannot be read: {error.strerror}: {whose}", remedy)
    if not status.st_size:
        restore = "restore it from a backup; or remove it, and every token must be issued again"
        return Check(name, FAILED, f"{kept} is empty", restore)
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        finding = f"{kept} has mode {mode:04o}: others can sign tokens with it"
        return Check(name, FAILED, finding, f"chmod 600 {quoted(kept)}")
    try:
        keyring.Keyring(kept.parent, str).check()
    except SkyctlError as error:
        return Check(name, FAILED, error.message, error.hint)
    return Check(name, OK, f"{kept}, mode {mode:04o}")


def _in_database(inputs: DoctorInputs) -> tuple[list[Check], UUID | None]:
    """Make the checks for which the database must answer, and read which installation it is of, where that is known.

    Where the database does not answer, the check of it fails and the others are not known.
    """
    asked: Mapping[str, Callable[[db.Transaction], Check]] = {
        **CHECKS,
        "retention": partial(doctor_retention.examine, policy=inputs.retention),
    }
    try:
        with inputs.database() as database:
            checks = [
                *_answer(database),
                doctor_transport.database(database),
                *(_check(database, name, check) for name, check in asked.items()),
            ]
            return checks, _installation_id(database)
    except SkyctlError as error:
        unknown = "not known: the database does not answer"
        again = "mend the database first, then run `skyctl doctor` again"
        unknowns = [Check(name, WARNING, unknown, again) for name in ("manager clock", "database transport", *asked)]
        return [Check("database", FAILED, error.message, error.hint), *unknowns], None


def _installation_id(database: db.Database) -> UUID | None:
    try:
        with database.transaction() as tx:
            return installation.installation_id(tx)
    except SchemaMissing:
        return None


def _check(database: db.Database, name: str, check: Callable[[db.Transaction], Check]) -> Check:
    """Make a check in a transaction of its own, so that what one lacks of the schema takes nothing from the others."""
    try:
        with database.transaction() as tx:
            return check(tx)
    except SchemaMissing:
        return Check(name, WARNING, "not known: the schema is not complete", "run `skyctl db init`, then this again")


def _answer(database: db.Database) -> list[Check]:
    """Check that the database answers, how fast, and how far our clock is from its: the fastest of a few rounds is the
    most exact."""
    rounds = []
    with database.transaction() as tx:
        db.require_writes(tx)  # the first one also begins the transaction
        for _ in range(ROUNDS):
            sent, started = datetime.now(UTC), perf_counter()
            database_time = db.clock(tx)
            took = timedelta(seconds=perf_counter() - started)
            rounds.append((took, sent + took / 2 - database_time))
    took, offset = min(rounds)
    latency = f"{database.address} answers in {took.total_seconds() * 1000:.1f} ms"
    return [Check("database", OK, latency), _manager_clock(offset)]


def _manager_clock(offset: timedelta) -> Check:
    difference = f"this machine's is {clock_offset(offset.total_seconds())}, against the database's"
    if abs(offset) <= CLOCK_WARNS:
        agrees = "this machine's agrees with the database's"
        return Check("manager clock", OK, difference if abs(offset) > CLOCKS_AGREE else agrees)
    return Check("manager clock", FAILED if abs(offset) > CLOCK_FAILS else WARNING, difference, SET_CLOCK)


def _certificate(inputs: DoctorInputs) -> Check:
    name, now = "certificate", datetime.now(UTC)
    try:
        certificates = inputs.certificates.inspect()
    except SkyctlError as error:
        return Check(name, FAILED, error.message, error.hint)
    if not certificates:
        unused = transport.transport_is_safe(inputs.api_url)
        plain = f"{inputs.api_url} is plain HTTP: hosts would send their tokens in the clear"
        return Check(name, OK, "none of ours: not needed") if unused else Check(name, WARNING, plain, "skyctl tls init")
    ended = [f"{cert.role} ended {ago(now, cert.ends_at)}" for cert in certificates if cert.ends_at <= now]
    soon = [f"{cert.role} ends in {span(cert.ends_at - now)}" for cert in certificates if is_due(cert, now)]
    renewed = "`skyctl serve` renews the server's by itself: see its log; by hand: skyctl tls init --renew"
    if ended or soon:
        remedy = REPLACE_AUTHORITY if is_due(certificates[0], now) else renewed
        return Check(name, FAILED if ended else WARNING, "; ".join(ended or soon), remedy)
    last = certificates[-1]
    whose = f"for {', '.join(last.names[:NAMED])}" if len(certificates) > 1 else "the authority's; `serve` has its own"
    return Check(name, OK, f"{whose}; good until {last.ends_at:%Y-%m-%d}")


def _api(inputs: DoctorInputs, installation_id: UUID | None) -> Check:
    api_url = inputs.api_url
    try:
        authority = inputs.certificates.authority_for(api_url)
    except SkyctlError:
        authority = ""  # what is wrong with it, the check of the certificate says
    answer = http_probe.probe(api_url, API_SECONDS, by_proxy=not is_loopback(api_url), authority=authority)
    if answer.trouble:
        remedy = "see that `skyctl serve` runs and listens there; set SKYCTL_API_URL to where hosts reach it"
        return Check("api", FAILED, f"{api_url} does not answer as it should: {answer.trouble}", remedy)
    answers = f"{api_url} answers in {answer.seconds * 1000:.0f} ms"
    if installation_id is None or (answer.ready and answer.ready.get("installationId") == str(installation_id)):
        return Check("api", OK, answers)
    if answer.ready is None:
        return Check("api", WARNING, f"{answers}, but {answer.unready}", SEE_SERVE)
    if not answer.ready.get("installationId"):
        remedy = "restart `skyctl serve` with this version, then run `skyctl doctor` again"
        return Check("api", WARNING, f"{answers}, but is too old to say which database it serves", remedy)
    remedy = "set SKYCTL_API_URL to where the serve of this database is, or SKYCTL_DATABASE_URL to its database"
    return Check("api", FAILED, f"{api_url} serves another database: it is the API of another cluster", remedy)


def _engine(engine: Engine, unfit: CheckState) -> Check:
    """Check that containers can be moved; an engine that was not set need not be the one for that."""
    try:
        state = engine.state()
    except (EngineRefused, EngineUnavailable) as error:
        return Check("docker", FAILED, error.message, error.hint)
    to_manager = "set DOCKER_HOST to a manager of the swarm"
    if state is None:
        return Check(
            "docker", WARNING, "no engine here, and DOCKER_HOST is not set: no container can be moved", to_manager
        )
    docker = f"Docker {state.version}"
    if state.swarm == "inactive":
        return Check("docker", unfit, f"{docker} is in no swarm", f"docker swarm init there, or {to_manager}")
    if state.swarm != "active" or state.trouble:
        trouble = state.trouble or f"it is {state.swarm}"
        return Check(
            "docker", FAILED, f"{docker}: the swarm is not well: {trouble}", "see `docker info` and `docker node ls`"
        )
    if not state.manages:
        return Check("docker", unfit, f"{docker} is a worker of its swarm, not a manager", to_manager)
    return Check("docker", OK, f"{docker} manages its swarm")
