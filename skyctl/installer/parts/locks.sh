# The locks of package managers: whoever holds one is waited for, and named.

lock_files() { # of every package manager; what ends in .pid holds the number of a process
  for file in /var/lib/apt/lists/lock /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/cache/apt/archives/lock \
    /var/lib/rpm/.rpm.lock /usr/lib/sysimage/rpm/.rpm.lock /run/dnf/rpmtransaction.lock /lib/apk/db/lock \
    /var/cache/dnf/metadata_lock.pid /var/cache/dnf/download_lock.pid /var/lib/dnf/rpmdb_lock.pid /run/yum.pid /run/zypp.pid; do
    [ ! -e "$file" ] || readlink -f "$file"
  done
}

lock_owners() { # FILE: the processes that may hold it
  case $1 in
    *.pid) sed -n 's/^\([0-9][0-9]*\)$/\1/p' "$1" ;;
    *) sed -n "s/^[0-9]*: *[A-Z]* *[A-Z]* *[A-Z]* *\([0-9][0-9]*\) [^ ]*:$(stat -c %i "$1") .*/\1/p" /proc/locks ;;
  esac 2>/dev/null
}

is_held_by() { # FILE PROCESS: a number may be another process's by now, and an inode another file's elsewhere
  case $1 in
    *.pid) tr '\0' ' ' 2>/dev/null <"/proc/$2/cmdline" | grep -q 'dnf\|yum\|zypp\|[Pp]ackage[Kk]it' && return ;;
    *) stat -L -c %d:%i "/proc/$2/fd"/* 2>/dev/null | grep -qxF "$(stat -c %d:%i "$1")" && return ;;
  esac
  return 1
}

lock_holder() { # prints the process for which a package manager would have to wait
  for file in $(lock_files); do
    for process in $(lock_owners "$file"); do
      if is_held_by "$file" "$process"; then
        echo "$process"
        return
      fi
    done
  done
  return 1
}

await_locks() {
  tries=900 named=
  while holder=$(lock_holder); do
    [ "$holder" = "$named" ] || say "another process is at work with packages: waiting for it to end (process $holder: $(words_of "$holder"))"
    named=$holder
    [ $tries -gt 0 ] || fail 36 "the packages of this host have been locked for 15 minutes by process $holder ($(words_of "$holder"))" \
      "look at it with: ps -fp $holder; and run this script again once it has ended"
    tries=$((tries - 1))
    sleep 1
  done
}

patiently() { # COMMAND...: again where somebody else took a lock just before it
  for attempt in 1 2 3; do
    await_locks
    status=0
    "$@" || status=$?
    if [ "$status" = 0 ] || ! lock_holder >/dev/null; then break; fi
  done
  return "$status"
}

