# Which worker this host is already.

configured_worker() { # prints the id of the configuration that is there; nothing where there is none
  sed -n 's/.*"workerId" *: *"\([^"]*\)".*/\1/p' "$config_file" 2>/dev/null | tr '[:upper:]' '[:lower:]' | sed 1q
}

is_this_worker() {
  [ "$(configured_worker)" = "$worker_id" ]
}

check_worker() { # sets $former, the worker that this host would no longer be
  former=
  [ -e "$config_file" ] && ! is_this_worker || return 0
  former=$(configured_worker)
  [ "$replace" = no ] || return 0
  told=$(systemctl show --property StatusText skypanel-worker 2>/dev/null) || told=
  case $told in
    StatusText=refused*) return 0 ;; # its manager wants it no more: there is nothing to lose
  esac
  manager_url=$(sed -n 's/.*"apiUrl" *: *"\([^"]*\)".*/\1/p' "$config_file" | sed 1q)
  fail 27 "this host is another worker already: ${former:-one that $config_file does not name} of ${manager_url:-an unknown manager} (${told#StatusText=})" \
    "if another host was meant, run it there; to give that worker up: skyctl workers remove ${former:-WORKER} on its manager, \
and then this script with --replace, or after skypanel-worker-uninstall"
}

tell_former() {
  [ -z "${former:-}" ] || say "the manager still lists the worker that this host was, until: skyctl workers remove $former"
}

