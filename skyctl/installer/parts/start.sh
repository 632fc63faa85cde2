# The agent as a service, until the manager has heard it.

start_agent() {
  logged systemctl enable skypanel-worker || fail 51 "skypanel-worker cannot be enabled" "see why in the log"
  if [ -e "$applied" ]; then
    say "no change: the agent is installed as it should be"
    verb=start
  else
    say "starting the agent"
    logged systemctl daemon-reload
    verb=restart
  fi
  logged systemctl "$verb" skypanel-worker || fail 52 "skypanel-worker does not start" "see: journalctl -u skypanel-worker"
  [ -e "$applied" ] || touch "$applied"
}

await_heartbeat() { # what the agent says of itself to systemd
  tries=90
  while [ $tries -gt 0 ]; do
    told=$(systemctl show --property StatusText skypanel-worker)
    case $told in
      StatusText=accepted*)
        say "the manager has confirmed a heartbeat: this host is worker $worker_id"
        return
        ;;
      StatusText=refused*)
        fail 60 "the manager refuses this host: ${told#*reason=}" \
          "make a new invitation: skyctl workers install-script; to remove all of it here: skypanel-worker-uninstall"
        ;;
    esac
    tries=$((tries - 1))
    sleep 1
  done
  remedy="the agent goes on trying; see: journalctl -u skypanel-worker; and on the manager: skyctl workers list --search $worker_id"
  [ -z "${https_proxy:-}${HTTPS_PROXY:-}" ] ||
    remedy="$remedy; this shell has a proxy, the agent has none: systemctl edit skypanel-worker, [Service], Environment=HTTPS_PROXY=..."
  fail 61 "the manager has confirmed no heartbeat in 90 seconds: ${told#StatusText=}" "$remedy"
}

