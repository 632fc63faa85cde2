# Which worker this host is already.

is_this_worker() {
  [ "$(worker_in "$config_file")" = "$worker_id" ]
}

check_worker() { # sets $former, the workers that this host would no longer be
  former=
  if [ -e "$config_file" ] && ! is_this_worker; then
    told=$(systemctl show --property StatusText skypanel-worker 2>/dev/null) || told=
    check_former "$config_file" "${told#StatusText=}" "to give that worker up"
  fi
  for file in $(panel_configs); do
    if is_panel_run "$file" && [ "$(worker_in "$file")" != "$worker_id" ]; then
      check_former "$file" "the web panel's agent" \
        "to keep that worker: skyctl workers install-script --worker $(worker_in "$file"); to give it up"
    fi
  done
}

check_former() { # CONFIG STATE REMEDY: refuses a host that is another worker
  id=$(worker_in "$1")
  case " $former " in
    *" $id "*) ;;
    *) former=${former:+$former }$id ;;
  esac
  [ "$replace" = no ] || return 0
  case $2 in
    refused*) return 0 ;; # its manager wants it no more: there is nothing to lose
  esac
  manager_url=$(manager_in "$1")
  fail 27 "this host is another worker already: ${id:-one that $1 does not name} of ${manager_url:-an unknown manager} ($2)" \
    "if another host was meant, run it there; $3: skyctl workers remove ${id:-WORKER} on its manager, \
and then this script with --replace, or after skypanel-worker-uninstall"
}

tell_former() {
  for id in $former; do
    say "the manager still lists the worker that this host was, until: skyctl workers remove $id"
  done
}

