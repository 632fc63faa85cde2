"""Invitations of hosts over HTTP."""

from dataclasses import replace

from skyctl.api.administration import reading
from skyctl.api.administration.route import Route
from skyctl.api.administration.schemas import FLAG, many
from skyctl.api.operation import ApiRequest
from skyctl.api.schemas import NAME, TEXT, Document, json_object
from skyctl.documents import http, times
from skyctl.domain.api_tokens import Role
from skyctl.domain.errors import ValidationError
from skyctl.operations.agents import install_links, invitations, release_keys
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context
from skyctl.settings import http_url


def invite(context: Context, request: ApiRequest) -> Document:
    """Invite a host: as a new worker, or anew as one that there is; by a script, or by a link to one."""
    said = reading.body(request, "name", "worker", "ttl", "insecure", "byLink", "apiUrl")
    if "apiUrl" in said:
        context = replace(context, api_url=http_url("apiUrl", reading.text(said, "apiUrl")))
    if "worker" in said and "name" in said:
        raise ValidationError("worker, name: both are given", "leave the name out: the worker keeps its own")
    ttl = times.duration("ttl", reading.text(said, "ttl")) if "ttl" in said else invitations.INVITATION_TTL
    name = http.worker_name(said["name"]) if "name" in said else None
    insecure, by_link = reading.flag("insecure", said), reading.flag("byLink", said)
    release_keys.to_pin(context)  # a script that a link gives is made by `serve`, of what is published
    existing_id = lookup.find_worker(context, reading.text(said, "worker")).id if "worker" in said else None
    if by_link:
        worker_id, url = install_links.invite(
            context, request.actor, name, insecure=insecure, ttl=ttl, existing_id=existing_id
        )
        made = {"workerId": str(worker_id), "link": url, "command": install_links.command(context, url)}
    else:
        invitation, script = invitations.generate_script(
            context, request.actor, name, insecure=insecure, ttl=ttl, existing_id=existing_id
        )
        made = {"workerId": str(invitation.worker_id), "token": invitation.token, "script": script}
    return {**made, "notes": list(invitations.notes(context))}


ROUTES = (
    Route(
        "POST",
        "/api/invitations",
        Role.ADMIN,
        "Invite a host as a new worker, or anew as one that there is: by a script, or by a link to one",
        invite,
        json_object(
            "token",
            "script",
            "link",
            "command",
            workerId=TEXT,
            token=TEXT,
            script=TEXT,
            link=TEXT,
            command=TEXT,
            notes=many(TEXT),
        ),
        body=reading.object_of(
            "name",
            "worker",
            "ttl",
            "insecure",
            "byLink",
            "apiUrl",
            name=NAME,
            worker=TEXT | {"description": f"invite the host of this worker anew: {reading.REFERENCE}"},
            ttl=TEXT | {"description": "how long the invitation is good: 30m, 2h, 1d; else 24h"},
            insecure=FLAG | {"description": "let the agent send its token over plain HTTP"},
            byLink=FLAG,
            apiUrl=TEXT | {"description": "where the host reaches the API; else as set"},
        ),
        may_refuse=True,
    ),
)
