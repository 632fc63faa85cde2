"""A service as people write it down: what is not accepted is named, and no error shows what may be a secret."""

from typing import Any

import pytest

from skyctl.documents import manifest
from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import Port
from skyctl.domain.errors import ValidationError


def spec(**fields: Any) -> Any:
    return manifest.spec({"name": "shop", "image": "shop:1", **fields})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"cpu": "0.0001"}, "cpu: '0.0001'"),
        ({"cpu": True}, "cpu: True"),
        ({"cpu": "1e3"}, "cpu: '1e3'"),
        ({"cpu": 5000}, "cpu: 5000"),
        ({"memory": "1M"}, "memory: '1M'"),
        ({"memory": "much"}, "memory: 'much'"),
        ({"disk": 0}, "disk: 0"),
        ({"ports": ["80:80", "80:81"]}, "ports: 80"),
        ({"ports": ["0"]}, "ports: '0'"),
        ({"ports": ["99999"]}, "ports: '99999'"),
        ({"image": "Shop:::"}, "image: 'Shop:::'"),
        ({"image": "a//b"}, "image: 'a//b'"),
        ({"image": ""}, "image: ''"),
        ({"labels": {"skypanel.service.id": "x"}}, "labels: 'skypanel.service.id'"),
        ({"labels": {"a\nb": "x"}}, "labels: name"),
        ({"env": {"1A": "x"}}, "env: name: '1A'"),
        ({"endpointMode": "magic"}, "endpointMode: 'magic'"),
        ({"name": "a\x1b[31m"}, "name"),
    ],
)
def test_what_is_not_accepted_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**fields)
    assert caught.value.message.startswith(named)
    assert caught.value.hint


@pytest.mark.parametrize(
    "image",
    [
        "nginx",
        "nginx:1.27",
        "registry.example.com:5000/team/app_x/y:v1.2-3",
        "localhost:9/a:1",
        f"a@sha256:{'0' * 64}",
        "v12",
    ],
)
def test_images_as_docker_names_them_are_accepted(image: str) -> None:
    assert spec(image=image).image == image


def test_sizes_and_ports() -> None:
    assert [spec(cpu=cpu).limits.cpu_cores for cpu in ("500m", "1500m", "0.5")] == [0.5, 1.5, 0.5]
    assert [spec(memory=size).limits.memory_mb for size in ("256Mi", "256MiB", "256M", "1Gi")] == [256, 256, 256, 1024]
    made = spec(cpu="0.5", memory="1.5G", disk="512M", ports=["80", "8080:80/udp", "8080:80"])
    assert made.limits == Capacity(0.5, 1536, 0.5)
    assert made.ports == [Port(0, 80), Port(8080, 80, "udp"), Port(8080, 80)]
    assert manifest.spec(manifest.fields(made)) == made


@pytest.mark.parametrize(
    "wrong", [lambda: manifest.pairs("env", ["A=1", "SECRET"]), lambda: spec(env={"A": "SECRET\0"})]
)
def test_no_error_shows_what_may_be_a_secret(wrong: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        wrong()
    assert "SECRET" not in f"{caught.value.message} {caught.value.hint}"


def test_what_is_stored_is_read_whatever_it_is() -> None:
    read = manifest.stored(
        "shop", "v1", {"A": 1}, None, {"ports": ["99999", "80", 7.5], "labels": ["x"], "endpointMode": 3}
    )
    assert (read.ports, read.labels, read.environment, read.limits) == ([Port(0, 80)], {}, {"A": "1"}, Capacity())
