"""A service as it is written down: in a YAML file, in options of the command line, and in the database.

What people write is read strictly: a wrong value is an error that names the field, the value and what is accepted. What
is stored is read leniently, since the panel writes there, too.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from skyctl.documents import http
from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import Mount, Port
from skyctl.domain.errors import InvalidValue, ValidationError
from skyctl.domain.states import EndpointMode
from skyctl.domain.text import CONTROL, storable
from skyctl.domain.workloads import DEFAULT_LIMITS, ServiceSpec
from skyctl.rules import services

FIELDS = (
    "name",
    "image",
    "cpu",
    "memory",
    "disk",
    "env",
    "ports",
    "endpointMode",
    "labels",
    "command",
    "replicas",
    "region",
    "pool",
    "spread",
)
_OF_PLACE = ("region", "pool", "spread")
OPTIONS = {
    **{field: f"--{field}" for field in ("image", "cpu", "memory", "disk", "env", *_OF_PLACE)},
    "name": "NAME",
    "ports": "--port",
    "endpointMode": "--endpoint-mode",
    "labels": "--label",
    "command": "COMMAND",
    "replicas": "--replicas",
}
"""What the command line calls the fields."""
OURS = "skypanel."
# As Docker reads it: [registry[:port]/]path[:tag][@digest].
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
IMAGE = re.compile(
    rf"(?:(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)(?::\d+)?/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@\w+:[0-9a-f]{{32,}})?"
)
PORT = re.compile(r"(?:(\d{1,5}):)?(\d{1,5})(?:/(tcp|udp))?")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
MILLI_CORES = re.compile(r"(\d{1,7})m")
AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgtKMGT])i?)?[bB]?")
MOST_REPLICAS = 1000
LEAST = {"cpu": 0.01, "memory": 6}  # what Docker takes
UNITS = {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1024 * 1024}


def spec(fields: Mapping[str, Any], options: Collection[str] = ()) -> ServiceSpec:
    """Return what an administrator wants, from the fields of a file or of options. Raises ValidationError that names
    the field, or the option of one of these `options`."""
    try:
        return _spec(fields)
    except InvalidValue as error:
        raise error.named({field: OPTIONS[field] for field in options}) from None


def _spec(fields: Mapping[str, Any]) -> ServiceSpec:
    image = _optional_text(fields, "image", 255)
    if not image or not IMAGE.fullmatch(image):
        raise http.invalid(
            "image", fields.get("image"), "an image's name, such as nginx:1.27 or registry.example.com/app:3"
        )
    wanted = ServiceSpec(
        name=_name(fields),
        image=image,
        limits=limits(fields, DEFAULT_LIMITS),
        environment=_pairs(fields, "env", VARIABLE),
        ports=_ports(fields),
        endpoint_mode=_endpoint_mode(fields.get("endpointMode", EndpointMode.VIP.value)),
        labels=_labels(fields),
        command=[_text(word, "command") for word in _list(fields, "command")],
        region=_optional_text(fields, "region", 255),
        pool=_optional_text(fields, "pool", 255),
        spread=_optional_text(fields, "spread", 255),
        replicas=replicas(fields.get("replicas", 1)),
    )
    check_place(wanted)
    return wanted


def changed(before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a service of which some are given anew: variables and labels are added to those before."""
    added = {
        field: before[field] | given[field]
        for field in ("env", "labels")
        if isinstance(before.get(field), dict) and isinstance(given.get(field), dict)
    }
    return {**before, **given, **added}


def is_same_service(one: ServiceSpec, other: ServiceSpec) -> bool:
    """Tell whether two names are known as the same."""
    return services.slug(one.name) == services.slug(other.name)


def check_place(wanted: ServiceSpec) -> None:
    """Raise InvalidValue for a service of several containers, which the swarm places, that says where these may be."""
    for field, value in zip(_OF_PLACE, (wanted.region, wanted.pool, wanted.spread), strict=True):
        if wanted.replicas > 1 and value is not None:
            raise http.invalid(field, value, "left out with several replicas: the swarm places these itself")


def replicas(value: object, least: int = 1) -> int:
    """Return a number of containers. Raises InvalidValue."""
    text = "" if isinstance(value, bool) else str(value).strip()
    if not re.fullmatch(r"[0-9]{1,4}", text) or not least <= int(text) <= MOST_REPLICAS:
        raise http.invalid("replicas", value, f"a whole number from {least} to {MOST_REPLICAS}")
    return int(text)


def _name(fields: Mapping[str, Any]) -> str:
    name = http.worker_name(_text(fields.get("name"), "name"))
    if not services.slug(name):
        raise http.invalid("name", name, "text with a letter or a digit of ASCII")
    return name


def limits(fields: Mapping[str, Any], default: Capacity) -> Capacity:
    """Return the limits that fields give; what is not given is as in the default. Raises InvalidValue."""
    return Capacity(
        cpu_cores=_figure(fields, "cpu", default.cpu_cores, "cpuCores", None),
        memory_mb=_figure(fields, "memory", default.memory_mb, "memoryMb", "m"),
        disk_gb=_figure(fields, "disk", default.disk_gb, "diskGb", "g"),
    )


def limits_document(limits: Capacity) -> dict[str, Any]:
    """Limits as they are stored: in camelCase as they are, and in snake_case rounded up for the panel's quota trigger,
    which reads nothing else, and refuses a row whose memory or disk is no whole number."""
    whole = {"memory_mb": math.ceil(limits.memory_mb), "disk_gb": math.ceil(limits.disk_gb)}
    return {**http.capacity_document(limits), "cpu_cores": limits.cpu_cores, **whole}


def settings_document(wanted: ServiceSpec) -> dict[str, Any]:
    """The way the engine runs a service and the places where it may be, as they are stored."""
    return {
        "endpointMode": wanted.endpoint_mode.value,
        "ports": [port_text(port) for port in wanted.ports],
        "labels": dict(wanted.labels),
        "command": list(wanted.command),
        "region": wanted.region,
        "pool": wanted.pool,
        "spread": wanted.spread,
        **({"adopted": True} if wanted.adopted else {}),
        **({"replicas": wanted.replicas} if wanted.replicas != 1 else {}),
    }


def stored(
    name: str, image: str, environment: Mapping[str, Any], limits: object, settings: Mapping[str, Any]
) -> ServiceSpec:
    """Return a service from stored documents, the panel's or ours; what cannot be understood counts as missing."""
    capacity, labels = http.capacity(limits), settings.get("labels")
    return ServiceSpec(
        name=name,
        image=image,
        limits=capacity,
        environment={str(key): str(value) for key, value in environment.items()},
        ports=_stored_ports(settings.get("ports")),
        endpoint_mode=EndpointMode.DNSRR if settings.get("endpointMode") == "dnsrr" else EndpointMode.VIP,
        labels={str(key): str(value) for key, value in labels.items()} if isinstance(labels, Mapping) else {},
        command=[str(word) for word in settings.get("command") or ()],
        region=settings.get("region"),
        pool=settings.get("pool"),
        spread=settings.get("spread"),
        adopted=settings.get("adopted") is True,
        replicas=_stored_replicas(settings.get("replicas")),
    )


def _stored_replicas(stored: object) -> int:
    with suppress(ValidationError):
        return replicas(stored)
    return 1


def _stored_ports(stored: object) -> list[Port]:
    ports = []
    for port in stored if isinstance(stored, list) else []:
        with suppress(ValidationError):
            ports.append(_port(port))
    return ports


def fields(wanted: ServiceSpec) -> dict[str, Any]:
    """Return the fields from which `spec` makes the same service again."""
    return {
        "name": wanted.name,
        "image": wanted.image,
        "cpu": wanted.limits.cpu_cores,
        "memory": wanted.limits.memory_mb,
        "disk": wanted.limits.disk_gb,
        "env": dict(wanted.environment),
        "ports": [port_text(port) for port in wanted.ports],
        "endpointMode": wanted.endpoint_mode.value,
        "labels": dict(wanted.labels),
        "command": list(wanted.command),
        "replicas": wanted.replicas,
        "region": wanted.region,
        "pool": wanted.pool,
        "spread": wanted.spread,
    }


def port_text(port: Port) -> str:
    """A port as people write it."""
    published = f"{port.published}:" if port.published else ""
    return f"{published}{port.target}" + ("" if port.protocol == "tcp" else f"/{port.protocol}")


def mount_text(mount: Mount) -> str:
    """A mount as people write it."""
    return mount.place if mount.of_image else f"{mount.place}:{mount.target}"


def pairs(field: str, options: Sequence[str]) -> dict[str, str]:
    """Return KEY=VALUE options as a mapping. Raises ValidationError, which does not show what may be a secret."""
    for number, option in enumerate(options, 1):
        if "=" not in option:
            raise ValidationError(
                f"{field}: number {number} is not KEY=VALUE", f"{field} is KEY=VALUE, given once for each"
            )
    return dict(option.split("=", 1) for option in options)


def _figure(fields: Mapping[str, Any], field: str, default: float, limit: str, unit: str | None) -> float:
    """A number, or a size such as 512M or 1.5G where the figure has a unit."""
    value = fields.get(field)
    if value is None:
        return default
    most = http.CAPACITY_LIMITS[limit]
    match = AMOUNT.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    amount = math.nan
    if unit is None and (milli := MILLI_CORES.fullmatch(str(value).strip())):
        amount = int(milli[1]) / 1000
    elif match and not (match[2] and unit is None):
        scale = UNITS[match[2].lower()] / UNITS[unit] if match[2] and unit else 1
        amount = float(match[1]) * scale
    least = LEAST.get(field, 0)
    if not amount or not least <= amount <= most:
        what = (
            "a number such as 0.5, or 500m"
            if unit is None
            else f"a size such as 512M, 256Mi or 2G (a bare number is {'MiB' if unit == 'm' else 'GiB'})"
        )
        raise http.invalid(field, value, f"{what}, {f'at least {least}' if least else 'over 0'}, at most {most}")
    return int(amount) if amount == int(amount) else amount


def _ports(fields: Mapping[str, Any]) -> list[Port]:
    ports = [_port(port) for port in _list(fields, "ports")]
    published = [(port.published, port.protocol) for port in ports if port.published]
    twice = next((port for port in published if published.count(port) > 1), None)
    if twice:
        raise http.invalid("ports", twice[0], "ports of which none is published twice")
    return ports


def _port(value: object) -> Port:
    match = PORT.fullmatch(str(value))
    if not match or not 0 < int(match[2]) < 65_536 or not int(match[1] or 0) < 65_536:
        raise http.invalid("ports", value, "PORT, PUBLISHED:PORT, or either with /udp; ports from 1 to 65535")
    return Port(int(match[1] or 0), int(match[2]), match[3] or "tcp")


def _endpoint_mode(value: object) -> EndpointMode:
    try:
        return EndpointMode(str(value))
    except ValueError as error:
        raise http.invalid("endpointMode", value, "one of " + ", ".join(EndpointMode)) from error


def _labels(fields: Mapping[str, Any]) -> dict[str, str]:
    labels = _pairs(fields, "labels", None)
    for key in labels:
        if key.startswith(OURS):
            raise http.invalid("labels", key, f"labels that do not begin with {OURS}, which are skyctl's own")
    return labels


def _pairs(fields: Mapping[str, Any], field: str, key_form: re.Pattern[str] | None) -> dict[str, str]:
    value = fields.get(field) or {}
    if not isinstance(value, Mapping):
        raise http.invalid(field, value, "a mapping of names to values")
    for key, inner in value.items():
        if not isinstance(key, str) or not key.strip() or (key_form and not key_form.fullmatch(key)):
            accepted = "text" if key_form is None else "letters, digits and _, no digit first"
            raise http.invalid(field, key, accepted, ": name")
        if CONTROL.search(key):
            raise http.invalid(field, key, "text without control characters", ": name")
        if isinstance(inner, (dict, list)) or inner is None:
            raise http.invalid(field, inner, "text, a number, true or false", f".{key}")
    return {key: _plain(field, key, inner) for key, inner in value.items()}


def _plain(field: str, key: str, value: object) -> str:
    """Return a value as text; it may be a secret, so no error shows it."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if not storable(text):
        raise InvalidValue(field, "its value", "text without NUL or lone surrogates", f".{key}")
    return text


def _list(fields: Mapping[str, Any], field: str) -> Sequence[Any]:
    value = fields.get(field) or []
    if not isinstance(value, (list, tuple)):
        raise http.invalid(field, value, "a list")
    return value


def _optional_text(fields: Mapping[str, Any], field: str, longest: int) -> str | None:
    value = fields.get(field)
    if value is None:
        return None
    if not 0 < len(_text(value, field)) <= longest:
        raise http.invalid(field, value, f"text of 1 to {longest} characters")
    return str(value)


def _text(value: object, field: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip() or not storable(value) or CONTROL.search(value):
        raise http.invalid(field, value, "text without control characters")
    return value
