"""Authenticate the holder of a token: a worker, an administrator of the panel, or whoever has a token of the API; and
the users of this machine."""

import hmac
from collections.abc import Mapping

from skyctl.domain.api_tokens import PREFIX, Role
from skyctl.domain.cluster import Actor, Worker
from skyctl.domain.errors import Forbidden, Unauthorized
from skyctl.domain.text import printable, quoted
from skyctl.domain.tokens import TokenState
from skyctl.host import local_users
from skyctl.operations.shared.context import Context
from skyctl.rules import identity, tokens
from skyctl.store import api_tokens, db, installation, organizations, workers
from skyctl.store import tokens as stored_tokens

LONGEST_TOKEN = 4096
ANOTHER = "have one made: skyctl tokens create NAME --role {}"
TO_GET_ONE: Mapping[str, str] = {
    "worker": tokens.INVITE_AGAIN,
    **{role.value: f"{tokens.SIGN_IN_AGAIN}, or {ANOTHER.format(role.value)}" for role in Role},
    "metrics": f"take that of SKYCTL_METRICS_TOKEN, or {tokens.SIGN_IN_AGAIN}",
}
"""What each kind of caller has to do for a good token."""


def holder_of(context: Context, token: str, who: str) -> str:
    """Return the id of the worker or the user whom a token was signed for; the keys must be at hand. `who` asks, see
    `TO_GET_ONE`. Raises Unauthorized or Forbidden where it can be seen without the database that the token is not an
    administrator's, or not a worker's."""
    keys = context.keys.at_hand() or ()
    holder = tokens.signed_for(keys, token) if len(token) <= LONGEST_TOKEN else None
    if holder is None:
        secret = "" if who == "worker" else "; `skyctl serve` needs the panel's JWT_SECRET"
        raise Unauthorized("the token was not issued by this manager", TO_GET_ONE[who] + secret)
    if holder.is_worker is not (who == "worker"):
        whose = "a worker's" if who == "worker" else "an administrator's"
        raise Forbidden(f"the token is not {whose}", TO_GET_ONE[who])
    return holder.id


fingerprint = tokens.fingerprint


def is_api_token(token: str) -> bool:
    """Tell whether a token is, by its form, one of the API's. Whether it is known takes the database."""
    return token.startswith(PREFIX) and len(token) <= LONGEST_TOKEN


def holder_of_role(
    context: Context, token: str, role: Role, ip_address: str | None = None, user_agent: str | None = None
) -> Actor:
    """Return who has a token that lets its holder act in this role, and from where: an administrator of the panel, or a
    token of the API by its name.

    Raises Unauthorized, or Forbidden where the role takes another token.
    """
    if not is_api_token(token):
        return administrator(context, token, ip_address, user_agent)
    with context.db.transaction() as tx:
        found, now = api_tokens.by_hash(tx, tokens.fingerprint(token)), db.now(tx)
        if found is None:
            raise Unauthorized("the token is not known here", TO_GET_ONE[role])
        if (state := found.state(now)) != "good":
            raise Unauthorized(f"the token {found.name} is {state}", TO_GET_ONE[role])
        if not found.role.may(role):
            raise Forbidden(
                f"the token {found.name} is of the role {found.role.value}, this takes {role.value}", TO_GET_ONE[role]
            )
        if found.is_use_to_be_noted(now):
            api_tokens.note_use(tx, found.id, ip_address)
    return Actor(f"token:{found.name}", None, ip_address, user_agent)


def role_of(context: Context, token: str) -> Role:
    """Return what may be done by a token that was let in; whoever needs none of the API's may do all."""
    if not is_api_token(token):
        return Role.ADMIN
    with context.db.transaction() as tx:
        found = api_tokens.by_hash(tx, tokens.fingerprint(token))
    return found.role if found else Role.VIEWER


def administrator(context: Context, token: str, ip_address: str | None = None, user_agent: str | None = None) -> Actor:
    """Return the administrator of a token, and from where they act.

    Raises Unauthorized, or Forbidden for a user who is no administrator.
    """
    with context.db.transaction() as tx:
        now = db.now(tx)
        issued_from = installation.admin_tokens_from(tx)
        keys = list(reversed(context.keys.accepted(now)))  # the workers' own as well, to say what such a token is
        user_id = tokens.verify_admin_token(keys, token, now, issued_from)
        user = organizations.email_and_role(tx, user_id)
    if user is None:
        raise Unauthorized("the token's user does not exist", tokens.SIGN_IN_AGAIN)
    email, role = user
    if role != "admin":
        raise Forbidden("only administrators may do this", tokens.SIGN_IN_AGAIN)
    return Actor(email, user_id, ip_address, user_agent)


def user_of_this_machine(user: int, user_agent: str | None = None) -> Actor:
    """Return the administrator that a user of this machine is, by the number that the kernel says. Raises Forbidden."""
    name = local_users.name_of(user)
    if not local_users.may_administer(user):
        raise Forbidden(
            f"the user {printable(name)} is no administrator by the socket: root, the user of `skyctl serve` and the "
            f"group {local_users.GROUP} are",
            f"usermod --append --groups {local_users.GROUP} {quoted(name)}, and log in again; or show a token: "
            + ANOTHER.format(Role.ADMIN.value),
        )
    return Actor(f"unix:{name}", None, "local", user_agent)


def reader_of_metrics(context: Context, token: str) -> None:
    """Let in whoever has the token of the metrics, or may see. Raises as `holder_of_role` does."""
    if not has_metrics_token(context, token):
        holder_of_role(context, token, Role.VIEWER)


def has_metrics_token(context: Context, token: str) -> bool:
    """Tell whether this is the token of the metrics."""
    known = context.metrics_token
    return bool(known) and hmac.compare_digest(token.encode("utf-8", "surrogateescape"), (known or "").encode())


def worker_of_token(context: Context, token: str) -> Worker | None:
    """Return the worker of a token; None where the token is not, or no longer, a worker's."""
    with context.db.transaction() as tx:
        now = db.now(tx)
        try:
            worker_id = tokens.verify_worker_token(context.keys.accepted(now), token, now).worker_id
        except (Unauthorized, Forbidden):
            return None
        stored = stored_tokens.get(tx, worker_id)
        is_valid = stored and identity.token_state(stored, tokens.fingerprint(token)) is not TokenState.STALE
        return workers.get(tx, worker_id) if is_valid else None
