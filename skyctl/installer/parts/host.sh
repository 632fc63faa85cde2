# What is asked of this host before anything is changed.

check_distribution() { # sets $distribution, $manager
  distribution=$(sed -n 's/^ID=//p' /etc/os-release 2>/dev/null | tr -d \"\')
  like=$(sed -n 's/^ID_LIKE=//p' /etc/os-release 2>/dev/null | tr -d \"\')
  managers=
  for name in $distribution $like; do
    case $name in
      debian | ubuntu) managers=apt-get ;;
      fedora | rhel | centos | rocky | almalinux | ol | amzn) managers="dnf yum" ;;
      suse | sles | opensuse*) managers=zypper ;;
      alpine) managers=apk ;;
      *) continue ;;
    esac
    break
  done
  [ -n "$managers" ] || fail 13 "the distribution '${distribution:-unknown}' is not supported" \
    "use a host with Debian, Ubuntu, a release of the RHEL family, SUSE or Alpine"
  for manager in $managers; do
    if "$manager" --version >/dev/null 2>&1; then
      passed distribution "$distribution, packages by $manager"
      return
    fi
  done
  fail 30 "there is no ${managers% *} that works on this $distribution to install packages" "install it, or see what it says, and run this script again"
}

check_architecture() {
  case $(uname -m) in
    x86_64 | amd64 | aarch64 | arm64) passed architecture "$(uname -m)" ;;
    *) fail 14 "the architecture $(uname -m) is not supported" "use a host of x86_64 or aarch64" ;;
  esac
}

check_disk() { # room for what is missing: the agent 100 MiB, Python 150, Docker 500
  wanted=10
  up_to_date || wanted=100
  find_python || wanted=$((wanted + 150))
  has_docker || wanted=$((wanted + 500))
  for folder in /opt /usr /var /etc; do
    [ -d "$folder" ] || folder=/
    free=$(df -Pk "$folder" | sed -n '$s/^.* \([0-9][0-9]*\)  *[0-9]*%.*$/\1/p')
    [ "$((${free:-0} / 1024))" -ge "$wanted" ] ||
      fail 16 "$folder has $((${free:-0} / 1024)) MiB free, and $wanted MiB are needed" "make room there and run this script again"
  done
  passed disk "$wanted MiB are free wherever they are needed"
}

check_folders() { # each is tried as it will be used: it may be read-only, noexec, immutable, over a quota
  # what the packages need, where some are missing
  [ -z "$(missing_packages)" ] || for folder in /usr/bin /usr/lib /var/lib /var/cache; do try_folder "$folder" run; done
  try_folder "$home" run # its libraries are mapped
  try_folder "${command_file%/*}" run
  for folder in "$config_folder" "${unit_file%/*}" "$state_folder" "${log%/*}"; do try_folder "$folder" write; done
  passed folders "all can be written, and run from where that is needed"
}

try_folder() { # FOLDER run|write: what is tried does not stay
  tried=$1 use=written
  [ "$2" = write ] || use='written and run'
  until [ -d "$tried" ]; do
    tried=${tried%/*}
    tried=${tried:-/}
  done
  probe=${tried%/}/.skypanel-worker.$$
  halves="$halves $probe"
  printf '#!/bin/sh\nexit 0\n' | cat - "$scratch/skyagent.tar.gz" >"$scratch/probe"
  trouble=$(write_probe "$2" 2>&1) && verdict=good || verdict=bad
  rm -f "$probe"
  [ "$verdict" = good ] || fail 19 "$1 cannot be used: in $tried a file cannot be $use: ${trouble##*: }" \
    "see: findmnt --target $tried; have it mounted writable, with room, and without noexec; and run this script again"
}

write_probe() { # run|write
  cat "$scratch/probe" >"$probe" && chmod 700 "$probe" && { [ "$1" = write ] || "$probe"; }
}

check_agent() { # leaves it as $scratch/skyagent.tar.gz
  agent_archive | base64 -d >"$scratch/skyagent.tar.gz" 2>/dev/null || true
  [ "$(sha256sum <"$scratch/skyagent.tar.gz")" = "$agent_sha256  -" ] ||
    fail 40 "the agent in this script is damaged" "have the script generated again: skyctl workers install-script"
  requirements >"$scratch/requirements.txt"
  [ "$(sha256sum <"$scratch/requirements.txt")" = "$requirements_sha256  -" ] ||
    fail 40 "the list of the agent's libraries in this script is damaged" "have the script generated again: skyctl workers install-script"
  passed agent "skyagent $agent_version, as it left the manager"
}

