#!/bin/sh
# Makes this host a worker: Docker, the agent as the systemd unit skypanel-worker, and the swarm where there is one.
# It may run again at any time: what is in place stays as it is. It holds secrets: keep it as you keep a password.
set -eu

agent_version=@@agent_version
agent_sha256=@@agent_sha256
httpx_version=@@httpx_version
psutil_version=@@psutil_version
config=@@config
swarm_join=@@swarm_join

home=/opt/skypanel-worker
venv=$home/venv
applied=$home/applied # there while the agent that runs is the one installed last
config_folder=/etc/skypanel-worker
config_file=$config_folder/config.json
unit_file=/etc/systemd/system/skypanel-worker.service
command_file=/usr/local/bin/skyagent
log=/var/log/skypanel-worker-install.log

main() {
  check_host
  need_python
  need_docker
  install_agent
  choose_identity
  write_config
  hand_over
  write_unit
  write_command
  joined=yes
  join_swarm || joined=no
  start_agent
  say "look at it with: systemctl status skypanel-worker; at its log with: journalctl -u skypanel-worker"
  [ "$joined" = yes ] || fail "this host has not joined the swarm" "remove the cause and run this script again"
}

say() {
  printf 'skypanel-worker: %s\n' "$1" >&2
}

fail() { # WHAT REMEDY
  printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
  exit 1
}

logged() {
  "$@" >>"$log" 2>&1 </dev/null
}

check_host() {
  [ "$(id -u)" = 0 ] || fail "this script needs root" "run it as root, for example: sudo sh SCRIPT"
  [ -d /run/systemd/system ] || fail "systemd does not run here, and the agent is a systemd unit" "use a host that systemd has booted"
}

package_manager() { # WHAT-FOR
  for manager in apt-get dnf yum zypper apk; do
    if command -v "$manager" >/dev/null 2>&1; then
      echo "$manager"
      return
    fi
  done
  fail "there is no apt-get, dnf, yum, zypper or apk to install $1" "install $1 yourself and run this script again"
}

install_packages() { # MANAGER PACKAGE...
  manager=$1
  shift
  case $manager in
    apt-get)
      export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 # a new package restarts nobody's services
      logged apt-get -q -o DPkg::Lock::Timeout=300 update || say "apt-get update failed: going on with the lists that are there"
      logged apt-get -q -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "$@"
      ;;
    dnf | yum) logged "$manager" --quiet --assumeyes install "$@" ;;
    zypper) logged zypper --quiet --non-interactive install "$@" ;;
    apk) logged apk add --quiet "$@" ;;
  esac || fail "$manager could not install $*" "its output is in $log"
}

find_python() { # sets $python
  for python in python3 python3.13 python3.12 python3.11 python3.10 python3.9; do
    "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1 && return
  done
  return 1
}

need_python() {
  if find_python; then return; fi
  say "installing Python"
  manager=$(package_manager "Python 3.9 or newer with venv")
  case $manager in
    apt-get) install_packages "$manager" python3 python3-venv ;;
    zypper) install_packages "$manager" python311 ;;
    *) install_packages "$manager" python3 ;;
  esac
  if find_python; then return; fi
  case $manager in # a release whose own python3 is too old
    apt-get) install_packages "$manager" python3.9 python3.9-venv ;;
    dnf | yum) install_packages "$manager" python3.11 ;;
  esac
  find_python || fail "$manager has no Python 3.9 or newer with venv" "install one yourself and run this script again"
}

docker_package() { # MANAGER
  case $1:$(sed -n 's/^ID=//p' /etc/os-release | tr -d '"') in
    apt-get:*) echo docker.io ;;
    zypper:* | apk:* | *:amzn) echo docker ;;
    *:fedora) echo moby-engine ;;
    *) echo docker-ce ;; # the release itself has none: Docker's own repository has to be there
  esac
}

need_docker() {
  if [ -S /var/run/docker.sock ]; then return; fi
  if ! command -v dockerd >/dev/null 2>&1; then
    say "installing Docker"
    manager=$(package_manager Docker)
    install_packages "$manager" "$(docker_package "$manager")"
  fi
  say "starting Docker"
  logged systemctl enable --now docker || fail "Docker does not start" "see: journalctl -u docker"
}

agent_archive() {
  cat <<'AGENT'
@@agent
AGENT
}

unpack_program() {
  cat <<'PYTHON'
import base64, hashlib, io, sys, sysconfig, tarfile
try:
    archive = base64.b64decode(sys.stdin.read())
except ValueError:
    archive = b""
if hashlib.sha256(archive).hexdigest() != sys.argv[1]:
    sys.exit(1)
tarfile.TarFile.extraction_filter = staticmethod(getattr(tarfile, "data_filter", None))
tarfile.open(fileobj=io.BytesIO(archive)).extractall(sysconfig.get_path("purelib"))
PYTHON
}

unpack_agent() { # PYTHON: unpacks into the environment of that interpreter
  agent_archive | "$1" -I -c "$(unpack_program)" "$agent_sha256" ||
    fail "the agent in this script is damaged" "have the script generated again: skyctl workers install-script"
}

install_agent() {
  release="skyagent $agent_sha256 httpx $httpx_version psutil $psutil_version"
  if [ "$(cat "$venv/release" 2>/dev/null)" = "$release" ] &&
    "$venv/bin/python" -I -c 'import httpx, psutil, skyagent' 2>/dev/null; then return; fi
  say "installing skyagent $agent_version in $home"
  rm -rf "$venv.new"
  mkdir -p "$home"
  logged "$python" -m venv "$venv.new" || fail "no virtual environment could be made in $home" "see why in $log"
  unpack_agent "$venv.new/bin/python"
  logged "$venv.new/bin/python" -m pip install --quiet --no-input "httpx==$httpx_version" "psutil==$psutil_version" ||
    fail "pip could not install httpx and psutil" "this host must reach PyPI or a mirror of it; pip's output is in $log"
  echo "$release" >"$venv.new/release"
  rm -rf "$applied" "$venv"
  mv "$venv.new" "$venv"
}

put() { # FILE MODE: stdin becomes the content of FILE, in one step, if it is not that already
  content=$(cat)
  if [ ! -f "$1" ] || [ "$(cat "$1")" != "$content" ]; then
    new=$(mktemp "$1.XXXXXX")
    cat >"$new" <<CONTENT
$content
CONTENT
    rm -f "$applied"
    mv -f "$new" "$1"
  fi
  chmod "$2" "$1"
}

write_config() (
  umask 077
  mkdir -p "$config_folder"
  put "$config_file" 600 <<CONFIG
$config
CONFIG
)

@@identity

write_unit() {
  put "$unit_file" 644 <<UNIT
@@unit
UNIT
}

write_command() { # what people call on the host: skyagent status
  mkdir -p "${command_file%/*}"
  put "$command_file" 755 <<COMMAND
#!/bin/sh
exec $venv/bin/python -I -m skyagent "\$@"
COMMAND
}

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
except httpx.HTTPError as error:
    sys.exit("error: the Docker engine does not answer: " + str(error))
PYTHON
}

join_swarm() { # not by the docker command, which takes the token as an argument that every user sees
  "$venv/bin/python" -I -c "$(join_program)" <<JOIN
$swarm_join
JOIN
}

start_agent() {
  logged systemctl enable skypanel-worker || fail "skypanel-worker cannot be enabled" "see why in $log"
  if [ -e "$applied" ]; then
    say "no change: the agent is installed as it should be"
    action=start
  else
    say "starting the agent"
    logged systemctl daemon-reload
    action=restart
  fi
  logged systemctl "$action" skypanel-worker || fail "skypanel-worker does not start" "see: journalctl -u skypanel-worker"
  [ -e "$applied" ] || touch "$applied"
}

main
