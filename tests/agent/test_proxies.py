"""The proxies of the environment, and the hosts that they are not asked for: as curl takes them, which is asked."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from skyagent.proxies import proxy_for
from tests.agent.peers import TOKEN, Manager
from tests.agent.process import Agent, agent_environ
from tests.agent.test_configuration import refused
from tests.support.helpers import PATIENCE_SECONDS, need

Start = Callable[..., Agent]
NOWHERE = "http://127.0.0.1:9"
NAME, IPV4, IPV6 = "manager.example", "192.0.2.7", "fd00::7"
EXCEPTED = [
    (NAME, "*"),
    (NAME, "manager.example"),
    (NAME, "Manager.Example"),
    (NAME, "manager.example."),
    (NAME, ".manager.example"),
    (NAME, "example"),
    (NAME, ".example"),
    (NAME, "localhost,fd00::/8,manager.example"),
    (NAME, " localhost , manager.example "),
    (NAME, "localhost manager.example"),
    (NAME, ",,manager.example,"),
    ("manager.example.", "manager.example"),
    (IPV4, "192.0.2.7"),
    (IPV4, "10.0.0.0/8,192.0.2.0/24"),
    (IPV4, "192.0.2.99/24"),
    (IPV4, "192.0.2.7/32"),
    (IPV6, "fd00::7"),
]
NOT_EXCEPTED = [
    (NAME, ""),
    (NAME, "notmanager.example"),
    (NAME, "ager.example"),
    (NAME, "www.manager.example"),
    (NAME, "*.example"),
    (NAME, "localhost,*"),
    (NAME, "manager.example:80"),
    (NAME, "http://manager.example"),
    (NAME, "[::1],::1,fd00::/8,10.0.0.0/8"),
    (NAME, "."),
    (IPV4, "192.0.2.8"),
    (IPV4, "2.7"),
    (IPV4, "192.0.2.0/99"),
    (IPV4, "192.0.2.0/x"),
    (IPV4, "fd00::/8"),
    (IPV6, "fe80::/10"),
    (IPV6, "[zz]"),
]


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [(*case, True) for case in EXCEPTED] + [(*case, False) for case in NOT_EXCEPTED],
)
def test_the_exceptions_are_those_of_curl(host: str, no_proxy: str, direct: bool) -> None:
    environ = {"http_proxy": NOWHERE, "no_proxy": no_proxy}
    assert (proxy_for(host, encrypted=False, environ=environ) is None) == direct
    assert _curl_goes_direct(host, environ) == direct


@pytest.mark.parametrize("entry", ["fd00:0:0::7", "fd00::/8", "[fd00::7]", "[fd00::]/8"])
def test_an_ipv6_address_is_one_however_it_is_written(entry: str) -> None:
    """By curl's description; some of its versions, 7.88 among them, compare the texts alone."""
    assert proxy_for(IPV6, encrypted=True, environ={"HTTPS_PROXY": NOWHERE, "NO_PROXY": entry}) is None


@pytest.mark.parametrize(
    ("encrypted", "variables", "port"),
    [
        (True, {"https_proxy": "http://p.example:1", "HTTPS_PROXY": "http://p.example:2"}, 1),
        (True, {"https_proxy": "", "HTTPS_PROXY": "http://p.example:2"}, 2),
        (True, {"HTTPS_PROXY": "http://p.example:2", "all_proxy": "http://p.example:3"}, 2),
        (True, {"http_proxy": "http://p.example:1", "ALL_PROXY": "p.example:3"}, 3),
        (False, {"https_proxy": "http://p.example:1", "HTTP_PROXY": "http://user:pa55@[fd00::1]"}, 80),
        (True, {"https_proxy": "https://p.example"}, 443),
        (True, {"http_proxy": "http://p.example:1"}, None),
        (True, {"https_proxy": "http://p.example:1", "NO_PROXY": NAME}, None),
        (True, {"https_proxy": "http://p.example:1", "no_proxy": "", "NO_PROXY": NAME}, None),
        (True, {"https_proxy": "http://p.example:1", "no_proxy": "elsewhere", "NO_PROXY": NAME}, 1),
    ],
    ids=str,
)
def test_lower_case_stands_over_upper_and_the_scheme_over_all(
    encrypted: bool, variables: dict[str, str], port: int | None
) -> None:
    proxy = proxy_for(NAME, encrypted=encrypted, environ=variables)
    assert (proxy and proxy.address[1]) == port


@pytest.mark.parametrize("case", [str.lower, str.upper], ids=["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("exceptions", ["localhost,fd00::/8,0.0.0.0", "[::1],0.0.0.0", "10.0.0.0/8,0.0.0.0/8"])
def test_what_stands_beside_the_manager_does_not_end_the_agent(
    manager: Manager, start: Start, exceptions: str, case: Callable[[str], str]
) -> None:
    environ = {case("no_proxy"): exceptions, "http_proxy": NOWHERE}
    start(apiUrl=f"http://0.0.0.0:{manager.server_port}", insecure=True, environ=environ)
    manager.heartbeats(1)


def test_exceptions_without_a_proxy_do_nothing(manager: Manager, start: Start) -> None:
    start(
        apiUrl=f"http://0.0.0.0:{manager.server_port}", insecure=True, environ={"NO_PROXY": "localhost,fd00::/8,[::1]"}
    )
    manager.heartbeats(1)


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    "value",
    [
        "gopher://proxy.example",
        "socks5://proxy.example",
        "http://proxy.example:x",
        "http://",
        "http://a b",
        "http://[zz]",
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(variable: str, value: str) -> None:
    error, hint = refused(SKYAGENT_API_URL="https://manager.example", SKYAGENT_TOKEN=TOKEN, **{variable: value})
    assert error == f"error: {variable} is {value!r}"
    assert "http://HOST:PORT" in hint


@pytest.mark.parametrize(
    "value", ["gopher://user:pa55@proxy.example", "user:pa55@proxy.example:x", "http://a:pa@55@[z"]
)
def test_the_password_of_a_proxy_is_not_shown(value: str) -> None:
    said = refused(SKYAGENT_API_URL="https://manager.example", SKYAGENT_TOKEN=TOKEN, HTTPS_PROXY=value)
    assert "pa" not in said[0].partition("HTTPS_PROXY is ")[2].replace("proxy.example", "")


def _curl_goes_direct(host: str, environ: dict[str, str]) -> bool:
    """Ask curl, where there is no network: it says by which variable it takes a proxy."""
    shown = f"[{host}]" if ":" in host else host
    command = ["unshare", "--map-root-user", "--net", need("curl"), "--verbose", f"http://{shown}/"]
    command += ["--resolve", f"{host}:80:127.0.0.1"] if host[0] == "m" else []
    done = subprocess.run(
        command, env=agent_environ(**environ), capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert "no_proxy" in done.stderr or not environ["no_proxy"], done.stderr
    return "proxy env variable http_proxy" not in done.stderr
