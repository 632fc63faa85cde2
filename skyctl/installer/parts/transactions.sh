# What package managers are asked to do: to add, never to remove, upgrade, or restart somebody's services.

call_manager() { # install | foresee PACKAGE...: does it, or tells on stdout what it would do with what this host knows
  mode=$1
  shift
  case $manager:$mode in
    apt-get:*)
      export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
      # apt's own user could not read a bundle in root's home
      set -- ${bundle:+-o APT::Sandbox::User=root} install --yes --no-upgrade --no-install-recommends "$@"
      if [ "$mode" = foresee ]; then
        apt-get -q --simulate -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Dir::Log::Planner= "$@"
      else
        apt-get -q --no-remove -o DPkg::Lock::Timeout=300 "$@"
      fi
      ;;
    dnf:install | yum:install) "$manager" --quiet --assumeyes install "$@" ;;
    dnf:foresee | yum:foresee) "$manager" --assumeno ${known_only:+--cacheonly} install "$@" ;;
    zypper:install) ZYPP_LOCK_TIMEOUT=300 zypper --quiet --non-interactive install --no-recommends "$@" ;;
    zypper:foresee) zypper --xmlout --non-interactive ${known_only:+--no-refresh} install --dry-run --no-recommends "$@" ;;
    apk:install) apk add --wait 300 --quiet "$@" ;;
    apk:foresee) apk add --simulate ${known_only:+--no-network} "$@" ;;
  esac
}

foresee() { # PACKAGE...: refuses what would remove a package; sets $gains, the packages that would be installed
  call_manager foresee "$@" >"$scratch/foreseen" 2>/dev/null </dev/null 9<&- || true
  gains=$(would_install | tr '\n' ' ')
  losses=$(would_remove | tr '\n' ' ')
  [ -z "$losses" ] || fail 35 "to install $*, $manager would remove ${losses% }" \
    "nothing is removed: remove it yourself if nothing needs it, or install Docker and Python in another way, and run this script again"
}

would_install() {
  case $manager in
    apt-get) sed -n 's/^Inst \([^ ]*\).*/\1/p' ;;
    dnf | yum) sed -n '/^Installing/,/^[^ I]/s/^ \([^ ][^ ]*\).*/\1/p' ;;
    zypper) sed -n '/<to-install>/,/<\/to-install>/s/.*<solvable [^>]*name="\([^"]*\)".*/\1/p' ;;
    apk) sed -n 's/^([0-9/]*) Installing \([^ ]*\).*/\1/p' ;;
  esac <"$scratch/foreseen"
}

would_remove() {
  case $manager in
    apt-get) sed -n 's/^Remv \([^ ]*\).*/\1/p' ;;
    dnf | yum) sed -n -e 's/^  *replacing  *\([^ ]*\).*/\1/p' -e '/^Removing/,/^[^ R]/s/^ \([^ ][^ ]*\).*/\1/p' ;;
    zypper) sed -n '/<to-remove>/,/<\/to-remove>/s/.*<solvable [^>]*name="\([^"]*\)".*/\1/p' ;;
    apk) sed -n 's/^([0-9/]*) Purging \([^ ]*\).*/\1/p' ;;
  esac <"$scratch/foreseen"
}

install_packages() { # RECORD PACKAGE...: adds to the file RECORD what is new, for the day when it is uninstalled; sets $outcome
  record=$1
  shift
  known_only=
  await_locks
  foresee "$@"
  mkdir -p "$home"
  installed_packages >"$scratch/before"
  outcome=0
  patiently logged call_manager install "$@" || outcome=$?
  # zypper has replaced itself, and wants to be called once more
  [ "$manager:$outcome" != zypper:103 ] || { patiently logged call_manager install "$@" || outcome=$?; }
  installed_packages | grep -vxFf "$scratch/before" >"$scratch/new" || true
  [ ! -s "$scratch/new" ] || cat "$scratch/new" >>"$record"
  [ -z "$bundle" ] || mark_dependencies
}

must_be_there() { # WHAT TEST: statuses also tell of what was installed all the same, such as that a reboot is due
  if "$2"; then
    [ "$outcome" = 0 ] || say "$1 is installed, though $manager ended with status $outcome; its words are in the log"
    return
  fi
  fail 31 "$manager could not install $1 (status $outcome)" "its output is in the log; when its cause is gone, run this script again"
}

read_lists() { # that a package is known is asked of them as well
  [ "$manager" = apt-get ] && [ -z "$bundle" ] || return 0
  patiently logged apt-get -q -o DPkg::Lock::Timeout=300 update ||
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

