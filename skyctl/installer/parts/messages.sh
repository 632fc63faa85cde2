# What people are told, what the log keeps, and how the script ends.

say() {
  printf 'skypanel-worker: %s\n' "$1" >&2
}

passed() { # WHAT FOUND
  say "ok: $1: $2"
}

fail() { # CODE WHAT REMEDY: ends the script; the code is also its exit status
  printf 'error W%s: %s\nhint: %s\n' "$1" "$2" "$3" >&2
  exit "$1"
}

begin() { # only one at a time; nothing is written but below /run, where the folder of the lock stays
  PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
  LC_ALL=C
  export PATH LC_ALL
  umask 022
  [ "$(id -u)" = 0 ] || fail 12 "this script needs root" "run it as root, for example: sudo sh SCRIPT"
  [ -d /run/systemd/system ] || fail 15 "systemd does not run here, and the agent is a systemd unit" "use a host that systemd has booted"
  command -v flock >/dev/null 2>&1 || fail 18 "there is no flock here, by which two runs keep apart" "install util-linux and run this script again"
  (umask 077 && mkdir -p "$lock_folder") # whoever may open it could hold the lock for ever
  chmod 700 "$lock_folder"
  exec 9<"$lock_folder"
  flock -n 9 || wait_for_turn
  echo "$$" >"$lock_folder/holder"
  scratch=
  trap finish EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 141' PIPE # whoever was told has gone away
  trap 'exit 143' TERM
  scratch=$(mktemp -d /run/skypanel-worker-install.XXXXXX)
}

wait_for_turn() {
  holder=$(cat "$lock_folder/holder" 2>/dev/null) || holder=unknown
  say "another run of this script is at work on this host: waiting for it to end (process $holder: $(words_of "$holder"))"
  flock -w 900 9 || fail 17 "another run of this script has not ended in 15 minutes: process $holder" "look at it with: ps -fp $holder"
}

words_of() { # PROCESS: the command that it runs
  tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep . || echo 'it has just ended'
}

finish() { # on every end: names what broke, and leaves no half of anything
  status=$?
  set +e
  trap - EXIT
  trap '' PIPE
  # shellcheck disable=SC2086 # the words are files
  rm -rf "${scratch:-/run/skypanel-worker-install.none}" $halves
  rmdir "$home" "$config_folder" 2>/dev/null
  case $status in
    0) exit 0 ;;
    1[1-9] | [2-6][0-9]) ;;
    129 | 130 | 141 | 143) printf 'error W10: ended by a signal\nhint: run this script again: it goes on where it was\n' >&2 ;;
    *) printf 'error W10: stopped unexpectedly with status %s\nhint: remove the cause and run this script again: it goes on where it was\n' "$status" >&2 ;;
  esac
  tell_next_link
  [ ! -s "$log" ] || printf 'log: %s\n' "$log" >&2
  exit "$status"
}

tell_next_link() {
  [ -z "${next_link:-}" ] || printf 'a link is good once; the next one: %s\n' "$next_link" >&2
}

open_log() { # from here on the host is changed
  [ -e "$log" ] || (umask 077 && : >"$log")
  chmod 600 "$log"
}

logged() {
  "$@" >>"$log" 2>&1 </dev/null 9<&-
}

