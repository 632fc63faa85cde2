"""Examples of the commands that people use in more than one way: in the help of each, and in its manual page."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Example(NamedTuple):
    """What somebody wants, and the line to type for it."""

    what: str
    line: str


EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    "serve": (
        Example("For hosts, with the certificate of `skyctl tls init`", "skyctl serve --host 0.0.0.0"),
        Example(
            "Behind a proxy of this machine that ends TLS",
            "skyctl serve --insecure-http --proxy 127.0.0.1",
        ),
        Example("With metrics for Prometheus on a port of their own", "skyctl serve --metrics-port 9465"),
    ),
    "monitor": (
        Example("Look every five seconds, with metrics", "skyctl monitor --interval 5 --metrics-port 9464"),
        Example("Once, from cron", "skyctl monitor --once"),
    ),
    "events": (
        Example("Go on with what comes", "skyctl events --follow"),
        Example("What befell a worker since yesterday", "skyctl events --since 24h --worker web-1"),
        Example("Each event after the last one that was read", "skyctl events --since 1500 --follow -o json"),
        Example("What was drained or removed, by kind", "skyctl events --kind drain_requested,removed -n 20"),
    ),
    "tls init": (
        Example("For this machine's own names", "skyctl tls init"),
        Example("With a further name, and an address", "skyctl tls init --host manager.example.com --host 192.0.2.10"),
    ),
    "systemd install": (
        Example("See what would be done", "skyctl systemd install --dry-run"),
        Example("Take the services away again", "skyctl systemd install --uninstall"),
    ),
    "workers install-script": (
        Example("Over your own connection", "skyctl workers install-script --name web-1 | ssh root@HOST sh"),
        Example("A line to paste on the host", "skyctl workers install-script --name web-1 --link"),
        Example("A file that you alone can read", "skyctl workers install-script --name web-1 --file web-1.sh"),
        Example("A host that was set up anew", "skyctl workers install-script --worker web-1 --ttl 2h"),
    ),
    "workers list": (
        Example("Who is not well", "skyctl workers list --status unhealthy,offline"),
        Example("The fullest first, read again as things happen", "skyctl workers list --sort-by disk --watch"),
        Example("The ids, for a script", "skyctl workers list --pool gpu -o json"),
    ),
    "workers label": (
        Example("Both", "skyctl workers label web-1 --region eu --pool gpu"),
        Example("Take its pool away", "skyctl workers label web-1 --pool ''"),
    ),
    "workers drain": (
        Example("See first what would move, and what would be left", "skyctl workers drain web-1 --plan"),
        Example(
            "Before maintenance: wait until it is empty", "skyctl workers drain web-1 --wait --reason 'new kernel'"
        ),
        Example(
            "Several, gently, and for two hours at most",
            "skyctl workers drain web-1 web-2 --max-parallel 1 --deadline 2h",
        ),
        Example("Empty it by then, whatever it takes", "skyctl workers drain web-1 --deadline 30m --force"),
    ),
    "workers cordon": (
        Example("Nothing new there while you look into it", "skyctl workers cordon web-1 --reason 'odd latencies'"),
        Example("Several", "skyctl workers cordon web-1 web-2"),
    ),
    "workers remove": (
        Example("Empty it first", "skyctl workers remove web-1 --drain"),
        Example("In a script", "skyctl workers remove web-1 --yes"),
    ),
    "workers upgrade": (
        Example("One first, to see that it goes well", "skyctl workers upgrade web-1"),
        Example("Say how many would be offered the new agent", "skyctl workers upgrade --all --dry-run"),
    ),
    "workers bundle": (
        Example("For one host", "skyctl workers bundle --output web-1 --name web-1 --platform x86_64"),
        Example("For a host that was set up anew", "skyctl workers bundle --output web-1 --worker web-1"),
    ),
    "tokens create": (
        Example("For a dashboard, which only looks", "skyctl tokens create dashboard --ttl 30d"),
        Example("For a pipeline that deploys", "skyctl tokens create ci --role operator --file ci.token"),
    ),
    "login": (
        Example("With the token that you were given, typed", "skyctl login https://manager.example.com:8642"),
        Example("From a file, by another name", "skyctl login https://192.0.2.10:8642 --name prod --token-file token"),
        Example("In a script", "skyctl login https://m.example.com --fingerprint AB:CD:... --token-file token"),
    ),
    "services deploy": (
        Example("A container", "skyctl services deploy shop --image registry.example.com/shop:7 --port 8080:80"),
        Example(
            "Another image, and wait until it runs",
            "skyctl services deploy shop --image shop:8 --wait",
        ),
        Example(
            "Several containers, with limits",
            "skyctl services deploy api --image api:3 --replicas 3 --cpu 500m --memory 256Mi",
        ),
        Example("From a file; see first what would change", "skyctl services deploy -f shop.yaml --dry-run"),
        Example("A command of its own", "skyctl services deploy job --image alpine:3 -- sleep 3600"),
    ),
    "services list": (
        Example("Whatever the swarm runs, whoever deployed it", "skyctl services list --all"),
        Example("What is on a worker", "skyctl services list --worker web-1"),
        Example("What is not well", "skyctl services list --status down,failed"),
    ),
    "services adopt": (
        Example("See which there are", "skyctl services adopt"),
        Example("One, with the room that it needs", "skyctl services adopt shop --cpu 1 --memory 512M"),
        Example("A whole stack", "skyctl services adopt --stack web"),
        Example("All, in a script", "skyctl services adopt --all --yes"),
    ),
    "services scale": (
        Example("One", "skyctl services scale api=5"),
        Example("Several", "skyctl services scale api=5 queue=2"),
    ),
    "services logs": (
        Example("Go on with what comes", "skyctl services logs api --follow"),
        Example("The last hour, with times", "skyctl services logs api --since 1h --timestamps"),
    ),
    "alerts list": (
        Example("The last ten", "skyctl alerts list -n 10"),
        Example("All of them, for a program", "skyctl alerts list -o json"),
    ),
    "alerts silence": (
        Example("For the time of some work", "skyctl alerts silence web-1 --for 2h --reason 'memory is replaced'"),
        Example("Several", "skyctl alerts silence web-1 web-2 --for 30m"),
    ),
    "migrations list": (
        Example("What is under way off a worker", "skyctl migrations list --worker web-1 --watch"),
        Example("What somebody has to look at", "skyctl migrations list --state awaiting_approval,failed"),
    ),
    "migrations approve": (
        Example("One", "skyctl migrations approve shop"),
        Example("All that wait", "skyctl migrations approve --all"),
    ),
    "migrations pause": (
        Example("For the time of some work", "skyctl migrations pause --for 2h --reason 'switch is replaced'"),
        Example("Until `skyctl migrations resume`", "skyctl migrations pause"),
    ),
}
"""By the words of a command, without `skyctl`."""


def show(command: Any, path: str) -> None:
    """Put the examples at the end of the help of a command, by its words."""
    if found := EXAMPLES.get(path):
        lines = [f"  # {example.what}\n  {example.line}" for example in found]
        command.epilog = "\b\nExamples:\n" + "\n".join(lines)
