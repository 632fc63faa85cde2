"""The specification: valid, complete, and kept to by the server whatever it is sent."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from openapi_spec_validator import validate

from skyctl.api.app import ROUTES
from skyctl.domain.api_tokens import Role
from skyctl.domain.engine import SwarmJoin
from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from tests.conftest import SECRET, Process, clean_environment
from tests.support.answering import answering
from tests.support.fakes import FakeEngine
from tests.support.helpers import PATIENCE_SECONDS, TESTS, admin_token, bearer

Serve = Callable[..., tuple[str, Process]]


def fetched(url: str, connection: psycopg.Connection) -> dict[str, Any]:
    """The document, as an administrator gets it."""
    headers = bearer(admin_token(SECRET, connection))
    document: dict[str, Any] = httpx.get(f"{url}/openapi.json", headers=headers, timeout=PATIENCE_SECONDS).json()
    return document


def test_the_document_is_valid_and_names_every_route(serve: Serve, connection: psycopg.Connection) -> None:
    url, _ = serve()
    document = fetched(url, connection)
    validate(document)
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    own = {("/healthz", "GET"), ("/ca.pem", "GET")}
    assert described == own | {(path, method) for path, methods in ROUTES.items() for method in methods}
    roles = {
        (path, method): alternative["apiToken"][0]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for alternative in operation["security"]
        if "apiToken" in alternative
    }
    wanted = {
        (path, method.lower()): "viewer" if operation.who == "metrics" else operation.who
        for path, methods in ROUTES.items()
        for method, operation in methods.items()
        if operation.who in (*Role, "metrics")
    }
    assert roles == wanted


@pytest.mark.parametrize(("who", "examples"), [("administrator", 25), ("worker", 10), ("nobody", 5)])
def test_no_answer_is_a_surprise(
    serve: Serve, connection: psycopg.Connection, context: Context, who: str, examples: int, tmp_path: Path
) -> None:
    """schemathesis sends what the document allows and what it does not: no 5xx, nothing that the document leaves
    out."""
    url, process = serve()
    invitation, engine = invitations.invite(context, TESTS), FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))
    tokens = {"administrator": admin_token(SECRET, connection), "worker": invitation.token, "nobody": "nobody"}
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(fetched(url, connection)))
    config = tmp_path / "schemathesis.toml"
    config.write_text(f'headers = {{ Authorization = "Bearer {tokens[who]}" }}\n')
    with answering(replace(context, engine=lambda: engine)):
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "schemathesis"),
                "--config-file",
                str(config),
                "run",
                str(document),
                "--url",
                url,
                "--exclude-path-regex",
                "/stream$",  # which has no end
                "--max-examples",
                str(examples),
                "--seed",
                "1",
                "--no-color",
                "--suppress-health-check",
                "all",
                "--checks",
                "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
                "response_headers_conformance,unsupported_method",
            ],
            env=clean_environment(),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert process.stop() == 0
    assert "Traceback" not in (log := "".join(process.seen)), log[-6000:]
