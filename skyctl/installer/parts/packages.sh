# What the distribution has to give: Python, Docker, Nix.

pythons() { # the one that is first on the path may be somebody's own, and not work
  echo python3 /usr/bin/python3 python3.13 python3.12 python3.11 python3.10 python3.9
}

find_python() { # sets $python
  for python in $(pythons); do
    "$python" -I -c 'import ensurepip, ssl, sys, venv, zlib; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1 && return
  done
  return 1
}

has_docker() {
  [ -S /var/run/docker.sock ] || command -v dockerd >/dev/null 2>&1
}

has_nix() {
  nix --version >/dev/null 2>&1 || /nix/var/nix/profiles/default/bin/nix --version >/dev/null 2>&1
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

missing_packages() { # the words that the package manager is given, as far as it is known before Python is there
  find_python || from_bundle python || python_packages
  has_docker || from_bundle docker || docker_packages
  [ "$with_nix" = no ] || has_nix || nix_package
}

check_packages() { # sets $gains; with the lists that are there, for nothing is changed before
  gains='' known_only=yes
  # shellcheck disable=SC2046 # the words are packages
  set -- $(missing_packages)
  [ $# -gt 0 ] || return 0
  foresee "$@"
  if [ -n "$gains" ]; then
    passed packages "nothing would be removed for those that are missing"
  else
    say "later: packages: what would come along is not known here before the lists are read"
  fi
}

need_python() {
  if find_python; then return; fi
  say "installing Python"
  read_lists
  # shellcheck disable=SC2046 # the words are packages
  install_packages "$packages" $(from_bundle python || python_packages)
  if ! find_python && command -v python3 >/dev/null 2>&1; then # but it is too old
    # shellcheck disable=SC2046
    [ -z "$(newer_python_packages)" ] || install_packages "$packages" $(newer_python_packages)
    find_python || [ "$outcome" != 0 ] || fail 32 "$manager has no Python 3.9 or newer with venv" "install one yourself and run this script again"
  fi
  must_be_there Python find_python
}

need_docker() {
  if [ -S /var/run/docker.sock ]; then return; fi
  if ! has_docker; then
    say "installing Docker"
    read_lists
    # shellcheck disable=SC2046 # the words are packages
    install_packages /dev/null $(from_bundle docker || docker_packages)
    must_be_there Docker has_docker
  fi
  say "starting Docker"
  logged systemctl enable --now docker || fail 33 "Docker does not start" "see: journalctl -u docker"
}

need_nix() {
  if [ "$with_nix" = no ] || has_nix; then return; fi
  say "installing Nix"
  read_lists
  install_packages "$packages" "$(nix_package)"
  must_be_there Nix has_nix
}

