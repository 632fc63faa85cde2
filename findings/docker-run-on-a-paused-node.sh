#!/bin/sh
# A node of a swarm that is set to `pause` gets no new tasks, and runs on. A plain `docker run` there is no task of any
# service; yet with an attachable overlay network it fails after 20 s, with words that blame the options of the network
# and the managers: attaching is a task, too, which the scheduler places nowhere. With any other network it starts.
# Docker 20.10.24 of Debian bookworm. As root: it runs an engine of its own, in namespaces of its own.
set -eu
[ "$(id -u)" = 0 ] || { echo "run this as root"; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/get" "$folder/root"
cd "$folder/get"
apt-get download --quiet --quiet 'docker.io=20.10.24*' containerd runc libip4tc2 iptables libnftnl11 libxtables12 \
    busybox-static 2>/dev/null
for package in *.deb; do dpkg-deb --extract "$package" "$folder/root"; done
cd /
export PATH="$folder/root/usr/sbin:$folder/root/usr/bin:$folder/root/bin:$PATH" folder
unshare --net --mount --pid --fork --mount-proc sh -eu <<'END'
ip link set lo up
ip link add up0 type veth peer name up1
ip address add 10.99.0.1/24 dev up0
ip link set up0 up
ip link set up1 up
mount -t tmpfs tmpfs /run
export DOCKER_HOST=unix:///run/docker.sock
dockerd --data-root "$folder/data" --exec-root /run/docker --iptables=false --bridge=none >"$folder/log" 2>&1 &
until docker info >/dev/null 2>&1; do sleep 0.2; done
docker swarm init --advertise-addr 10.99.0.1 >/dev/null
docker network create --driver overlay --attachable net >/dev/null
tar --create --file - --directory "$folder/root" bin/busybox | docker import - box >/dev/null
asked() { docker run --rm "$@" box /bin/busybox echo starts 2>&1 | sed -n '/starts\|Error/p' | head -n 1; }
echo "Docker $(docker version --format '{{.Server.Version}}')"
active=$(asked --network net)
docker node update --availability pause "$(docker info --format '{{.Swarm.NodeID}}')" >/dev/null
other=$(asked --network none)
paused=$(asked --network net)
echo "node active, overlay network:  $active"
echo "node paused, no network:       $other"
echo "node paused, overlay network:  $paused"
kill $!
case "$active/$other/$paused" in
    starts/starts/*"context deadline exceeded"*) echo "as found" ;;
    *) echo "CHANGED"; exit 1 ;;
esac
END
