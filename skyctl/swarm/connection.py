"""Requests to a Docker engine: each has a time limit, and the SDK's errors end here."""

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

import docker
from docker.auth import get_config_header, resolve_repository_name
from docker.errors import APIError, DockerException
from docker.utils import kwargs_from_env

from skyctl.domain.errors import EngineConflict, EngineRefused, EngineUnavailable
from skyctl.domain.text import quoted, without_secrets, without_secrets_of

if TYPE_CHECKING:
    from requests import Response

_TIMEOUT_SECONDS = 5
_STREAM_SECONDS = 30  # between two parts of an answer that ends
_PART_BYTES = 1 << 20
_REGISTRY_SECONDS = 15  # for an answer that the engine has to get from elsewhere first
_SILENT = "does not answer"
# A request that times out or is cut off is an OSError of the HTTP library; what the engine refuses is the SDK's own.
_FAILURES = (DockerException, OSError)
# Swarm answers what it refuses and what it cannot do with the same statuses, so only the words tell them apart.
_OUT_OF_SEQUENCE = "out of sequence"
_NO_MANAGER = "not a swarm manager"
_LOCKED = "locked"
_NO_LEADER = "does not have a leader"
_VOICELESS = (
    *(_NO_MANAGER, _NO_LEADER, "needs to be unlocked", "deadline exceeded", "context canceled"),
    *("code = unavailable", "connection error"),
)


class Missing(EngineRefused):
    """The engine does not know what it is asked for."""


class Connection:
    """One engine, by connections that are kept for the next request; threads may share it.

    They are closed with the last reference to it. Each method raises EngineUnavailable where the engine does not answer
    or has no say in a swarm, EngineRefused where it says no: EngineConflict where somebody else was faster, Missing
    where there is no such thing.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._shown = without_secrets(host)
        self._lock = Lock()
        self._client: docker.APIClient | None = None

    def open(self) -> None:
        """Make sure that the engine answers."""
        self._opened()

    def get(
        self, path: str, *, failure: str = "", lean: Callable[[dict[str, Any]], Any] | None = None, **parameters: str
    ) -> Any:
        """Return the engine's answer at the path. `failure` is what an error says that it did not do; `lean` takes out
        of each document within what nobody reads, so that a long answer is never in memory as a whole."""
        return self._ask("GET", path, failure, parameters, None, lean=lean)

    def get_of_registry(self, path: str, image: str, *, failure: str) -> Any:
        """Return what the engine asks an image's registry for us, with what the SDK knows of that registry."""
        return self._ask("GET", path, failure, {}, None, image, _REGISTRY_SECONDS)

    def unavailable(self, failure: str, words: str) -> EngineUnavailable:
        """Return the error of an engine that answers, and is of no use all the same: what it does not do, and why."""
        if _NO_MANAGER in words:
            hint = "set DOCKER_HOST to a manager of the swarm, or let this engine begin one with `docker swarm init`"
        elif _LOCKED in words:
            hint = "unlock the swarm there: docker swarm unlock"
        elif _NO_LEADER in words:
            hint = (
                "see that most managers of the swarm are up; where they are lost: docker swarm init --force-new-cluster"
            )
        else:
            hint = f"see {self._look}, or set DOCKER_HOST to a manager of the swarm"
        return EngineUnavailable(f"the Docker engine at {self._shown} {failure}: {self._public(words)}", hint)

    def post(self, path: str, body: object, *, image: str | None = None, **parameters: str) -> Any:
        """Hand a document over, with what the SDK knows of the image's registry; what the engine says to it."""
        return self._ask("POST", path, "does not take the order", parameters, body, image)

    def stream(self, path: str, **parameters: str) -> Iterator[bytes]:
        """Return the engine's answer at the path as it comes; where it is followed, however long nothing comes."""
        client = self._opened()
        seconds = None if "follow" in parameters else _STREAM_SECONDS
        try:
            answer = client.request(
                "GET",
                f"{client.base_url}/v{client.api_version}{path}",
                params=parameters,
                timeout=(_TIMEOUT_SECONDS, seconds),
                stream=True,
            )
            with answer:
                if answer.ok:
                    yield from answer.iter_content(None)
                    return
                words = str(answer.json().get("message"))
        except _FAILURES as error:
            self._drop(client)
            raise self._away(_SILENT, _cause(error)) from error
        raise self._refusal("GET", "", answer.status_code, words)

    def delete(self, path: str, **parameters: str) -> None:
        """Remove what is there."""
        self._ask("DELETE", path, "does not take the order", parameters, None)

    def _ask(
        self,
        method: str,
        path: str,
        failure: str,
        parameters: Mapping[str, str],
        body: object,
        image: str | None = None,
        seconds: float = _TIMEOUT_SECONDS,
        lean: Callable[[dict[str, Any]], Any] | None = None,
    ) -> Any:
        client = self._opened()
        try:
            answer = client.request(
                method,
                f"{client.base_url}/v{client.api_version}{path}",
                params=parameters,
                json=body,
                headers=_credentials(client, image) if image else {},
                timeout=seconds,
                stream=True,
            )
            if answer.ok:
                return _parsed(answer, lean)
            words = str(answer.json().get("message"))
        except (*_FAILURES, ValueError) as error:  # the last where the answer is no JSON
            self._drop(client)
            raise self._away(failure or _SILENT, _cause(error)) from error
        raise self._refusal(method, failure, answer.status_code, words)

    def _opened(self) -> docker.APIClient:
        environment = {**os.environ, "DOCKER_HOST": self._host}
        try:
            _probe(self._host)
            with self._lock:
                if self._client is None:
                    settings = kwargs_from_env(environment=environment)
                    self._client = docker.APIClient(timeout=_TIMEOUT_SECONDS, **settings)
                return self._client
        except (*_FAILURES, ValueError) as error:  # the last where the address is none
            raise self._away(_SILENT, _cause(error)) from error

    def _drop(self, client: docker.APIClient) -> None:
        with self._lock:
            if self._client is client:
                self._client = None
        client.close()

    def _refusal(self, method: str, failure: str, status: int, words: str) -> EngineUnavailable | EngineRefused:
        """The error of an answer of 400 and more: one that does not tell what it has is of no use, whatever the
        reason."""
        if status == 404:
            return Missing(f"the Docker engine at {self._shown} says no: {words}")
        if method == "GET" or status == 503 or any(sign in words.lower() for sign in _VOICELESS):
            return self.unavailable(failure or "answers with a refusal", words)
        if status == 409 or _OUT_OF_SEQUENCE in words:
            return EngineConflict(f"the Docker engine at {self._shown} saw a change by somebody else: {words}")
        return EngineRefused(f"the Docker engine at {self._shown} says no: {words}")

    def _away(self, failure: str, words: str) -> EngineUnavailable:
        hint = f"see that it is up with {self._look}, or set DOCKER_HOST to a manager of the swarm"
        return EngineUnavailable(f"the Docker engine at {self._shown} {failure}: {self._public(words)}", hint)

    @property
    def _look(self) -> str:
        return f"`docker --host {quoted(self._shown)} info`"

    def _public(self, words: str) -> str:
        return without_secrets_of(self._host, words)


def _probe(host: str) -> None:
    """Raise OSError where nobody listens on a unix socket: the SDK would leave its own socket open then."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_SECONDS)
            connection.connect(host.removeprefix("unix://"))


def _parsed(answer: "Response", lean: Callable[[dict[str, Any]], Any] | None) -> Any:
    """The document that is answered, if any. Its bytes are gone before it is parsed: a large swarm has many."""
    body = bytearray()
    for part in answer.iter_content(_PART_BYTES):
        body += part
    text = body.decode()
    del body
    return json.loads(text, object_hook=lean) if text else None


def _credentials(client: docker.APIClient, image: str) -> dict[str, bytes]:
    """The credentials with which the nodes log in to the image's registry: as whoever runs this does, like
    `--with-registry-auth`."""
    registry, _ = resolve_repository_name(image)
    header = get_config_header(client, registry)
    return {"X-Registry-Auth": header} if header else {}


def _cause(error: DockerException | OSError | ValueError) -> str:
    """The engine's own words, else the system's: the SDK wraps both several times over."""
    if isinstance(error, APIError):
        return str(error.explanation)
    innermost: BaseException = error
    while innermost.__context__:
        innermost = innermost.__context__
    return str(innermost) if isinstance(innermost, OSError) else str(error)
