"""The installation over HTTP: what the doctor finds on the host of a monitor, which has the engine."""

from skyctl.api.administration.route import Route
from skyctl.api.administration.schemas import FLAG, many, one_of
from skyctl.api.operation import ApiRequest
from skyctl.api.schemas import TEXT, Document, json_object
from skyctl.documents import installation
from skyctl.domain.api_tokens import Role
from skyctl.domain.checks import CheckState
from skyctl.domain.errors import Refused
from skyctl.operations.admin import doctor
from skyctl.operations.shared.context import Context


def examine(context: Context, _request: ApiRequest) -> Document:
    """Look at everything that has to work. Raises Refused in a process that was not given what to look at."""
    if context.doctor_inputs is None:
        raise Refused("this process does not know what to examine", "run `skyctl doctor` on the manager's host")
    checks = doctor.examine(context.doctor_inputs())
    return installation.checkup_document(checks, healthy=doctor.is_healthy(checks))


ROUTES = (
    Route(
        "GET",
        "/api/doctor",
        Role.ADMIN,
        "Whether everything works that has to, as seen on the host of the monitor that answers",
        examine,
        json_object(
            healthy=FLAG, checks=many(json_object(name=TEXT, state=one_of(CheckState), found=TEXT, remedy=TEXT))
        ),
        may_refuse=True,
        by_monitor=True,
    ),
)
