"""What the doctor says of the ways to the database and the engine, and of the files that settings are read from."""

from collections.abc import Sequence

from skyctl.domain.checks import Check, CheckState
from skyctl.operations.shared.context import DoctorInputs
from skyctl.rules import transport
from skyctl.store import db


def settings(concerns: Sequence[tuple[str, str]]) -> Check:
    """Check that nobody else reads or changes the settings."""
    if not concerns:
        return Check("settings", CheckState.OK, "can be read")
    found, remedies = zip(*concerns, strict=True)
    return Check("settings", CheckState.WARNING, "; ".join(found), "; ".join(remedies))


def database(connected: db.Database) -> Check:
    """Check that nobody on the way reads along, or answers in the database's place."""
    way = connected.way
    risk = transport.database_risk(way.hosts, way.ssl_mode, has_authority=way.has_authority)
    remedy = "add ?sslmode=verify-full&sslrootcert=FILE to SKYCTL_DATABASE_URL, with the certificate of its authority"
    if risk:
        return Check("database transport", CheckState.WARNING, risk, remedy)
    return Check("database transport", CheckState.OK, "on this machine, or its certificate is verified")


def engine(inputs: DoctorInputs) -> Check:
    """Check that only we command the engine."""
    risk = transport.engine_risk(inputs.docker_host, verified=inputs.docker_verified)
    remedy = "use its unix socket, ssh://, or TLS with DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH"
    if risk:
        return Check("docker transport", CheckState.WARNING, risk, remedy)
    return Check("docker transport", CheckState.OK, "its socket, or verified")
