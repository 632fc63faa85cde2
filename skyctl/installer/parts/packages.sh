# What the distribution has to give: Python, Docker, Nix.

find_python() { # sets $python
  for python in python3 python3.13 python3.12 python3.11 python3.10 python3.9; do
    "$python" -I -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1 && return
  done
  return 1
}

has_docker() {
  [ -S /var/run/docker.sock ] || command -v dockerd >/dev/null 2>&1
}

has_nix() {
  command -v nix >/dev/null 2>&1 || [ -x /nix/var/nix/profiles/default/bin/nix ]
}

python_packages() {
  case $manager in
    apt-get) echo python3 python3-venv ;;
    zypper) echo python311 ;;
    *) echo python3 ;;
  esac
}

newer_python_packages() { # of a release whose own python3 is too old
  case $manager in
    apt-get) echo python3.9 python3.9-venv ;;
    dnf | yum) echo python3.11 ;;
  esac
}

docker_packages() { # with what it needs to pull an image; its command is a package of its own in some releases
  # shellcheck disable=SC2046 # that is nothing, or one word
  case $manager:$distribution in
    apt-get:*) echo docker.io ca-certificates $(apt-cache show docker-cli 2>/dev/null | sed -n 's/^Package: //p' | sed 1q) ;;
    zypper:* | apk:* | *:amzn) echo docker ;;
    *:fedora) echo moby-engine ;;
    *) echo docker-ce ;; # the release itself has none: Docker's own repository has to be there
  esac
}

nix_package() {
  case $manager in
    apt-get) echo nix-setup-systemd ;;
    zypper | apk) echo nix ;;
  esac
}

check_nix() {
  [ "$with_nix" = no ] || has_nix || [ -n "$(nix_package)" ] ||
    fail 34 "--with-nix: $distribution has no package of Nix" "install it yourself (https://nixos.org/download), and leave --with-nix out"
}

install_packages() { # RECORD PACKAGE...: adds to the file RECORD what is new, for the day when it is uninstalled
  record=$1
  shift
  mkdir -p "$home"
  installed_packages >"$scratch/before"
  outcome=installed
  call_manager "$@" || outcome=failed
  installed_packages | grep -vxFf "$scratch/before" >"$scratch/new" || true
  [ ! -s "$scratch/new" ] || cat "$scratch/new" >>"$record"
  [ $outcome = installed ] ||
    fail 31 "$manager could not install $*" "its output is in the log; when its cause is gone, run this script again"
  [ -z "$bundle" ] || mark_dependencies
}

call_manager() { # PACKAGE...: adds, upgrades nothing, restarts nobody's services
  case $manager in
    apt-get)
      export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
      # apt's own user could not read a bundle in root's home
      logged apt-get -q -o DPkg::Lock::Timeout=300 ${bundle:+-o APT::Sandbox::User=root} install --yes --no-upgrade --no-install-recommends "$@"
      ;;
    dnf | yum) logged "$manager" --quiet --assumeyes install "$@" ;;
    zypper) logged zypper --quiet --non-interactive install --no-recommends "$@" ;;
    apk) logged apk add --quiet "$@" ;;
  esac
}

read_lists() { # that a package is known is asked of them as well
  [ "$manager" = apt-get ] && [ -z "$bundle" ] || return 0
  logged apt-get -q -o DPkg::Lock::Timeout=300 update ||
    say "apt-get update failed: going on with the lists that are there"
}

installed_packages() {
  case $manager in
    apt-get) dpkg-query -W -f '${db:Status-Status} ${binary:Package}\n' | sed -n 's/^installed //p' ;;
    apk) apk info ;;
    *) rpm -qa --queryformat '%{NAME}\n' ;;
  esac | sort -u
}

mark_dependencies() { # apt takes every file that it is given for wanted by name: of the new ones only these are
  while IFS= read -r name; do
    case $name in
      python3* | docker* | ca-certificates) ;;
      *) logged apt-mark auto "$name" || true ;;
    esac
  done <"$scratch/new"
}

need_python() {
  if find_python; then return; fi
  say "installing Python"
  read_lists
  # shellcheck disable=SC2046 # the words are packages
  install_packages "$packages" $(from_bundle python || python_packages)
  if find_python; then return; fi
  # shellcheck disable=SC2046
  [ -z "$(newer_python_packages)" ] || install_packages "$packages" $(newer_python_packages)
  find_python || fail 32 "$manager has no Python 3.9 or newer with venv" "install one yourself and run this script again"
}

need_docker() {
  if [ -S /var/run/docker.sock ]; then return; fi
  if ! has_docker; then
    say "installing Docker"
    read_lists
    # shellcheck disable=SC2046 # the words are packages
    install_packages /dev/null $(from_bundle docker || docker_packages)
  fi
  say "starting Docker"
  logged systemctl enable --now docker || fail 33 "Docker does not start" "see: journalctl -u docker"
}

need_nix() {
  if [ "$with_nix" = no ] || has_nix; then return; fi
  say "installing Nix"
  read_lists
  install_packages "$packages" "$(nix_package)"
}

