# The swarm.

join_program() {
  cat <<'PYTHON'
import json, sys, httpx
def tell(text):
    sys.stderr.write("skypanel-worker: " + text + "\n")
join = json.load(sys.stdin)
try:
    with httpx.Client(transport=httpx.HTTPTransport(uds="/var/run/docker.sock"), timeout=60) as engine:
        info = engine.get("http://docker/info").raise_for_status().json()
        if info["Swarm"]["LocalNodeState"] != "inactive":
            tell("this host is in a swarm already")
        elif join is None:
            tell("to join a swarm, run here the command that `docker swarm join-token worker` prints on its manager")
        else:
            tell("joining the swarm of " + join["RemoteAddrs"][0])
            answer = engine.post("http://docker/swarm/join", json=join)
            if answer.is_error:
                sys.exit("error: " + answer.text.strip())
            sys.stdout.write("joined")
except httpx.HTTPError as error:
    sys.exit("error: the Docker engine does not answer: " + str(error))
PYTHON
}

join_swarm() { # not by the docker command, which takes the token as an argument that every user sees
  outcome=$(
    "$venv/bin/python" -I -c "$(join_program)" <<JOIN
$swarm_join
JOIN
  ) || return 1
  [ "$outcome" != joined ] || touch "$joined"
}

tell_ports() {
  say "the hosts of a swarm need to reach each other at 2377/tcp, 7946/tcp and udp, 4789/udp; this script opens nothing in a firewall"
}

