# Removes everything of ours from this host, but for Docker.

ours() {
  # shellcheck disable=SC2086 # the words are files
  for path in "$venv" "$runner" "$applied" "$packages" "$joined" \
    "$config_folder" "$state_folder" "$runtime_folder" "$unit_file" "$unit_file.d" "$command_file" "$uninstaller" $halves; do
    [ ! -e "$path" ] || printf '%s\n' "$path"
  done
}

uninstall() {
  case ${1:-} in
    '') ;;
    --help | -h)
      echo "usage: skypanel-worker-uninstall [--dry-run]"
      return
      ;;
    --dry-run)
      [ ! -e "$joined" ] || say "would leave the swarm"
      [ ! -s "$packages" ] || say "would remove the packages $(tr '\n' ' ' <"$packages"), but for those that are needed by now"
      ! is_account_ours || say "would remove the user $account"
      tell_panel_agent
      ours | while IFS= read -r path; do say "would remove $path"; done
      say "nothing was changed"
      return
      ;;
    *) fail 11 "'$1' is no option of this script" "usage: skypanel-worker-uninstall [--dry-run]" ;;
  esac
  begin
  open_log
  workers=$(for file in "$config_file" $(panel_configs); do worker_in "$file"; done | sort -u)
  leave_swarm || fail 65 "this host could not leave the swarm, and nothing was removed" \
    "remove the cause, or run here: docker swarm leave; and then this once more"
  remove_panel_agent
  stop_agent
  remove_packages
  ours | while IFS= read -r path; do rm -rf "$path"; done
  remove_account
  say "removed: the agent and all its files; Docker stays"
  for path in "$home"/* "$home"/.[!.]*; do
    [ ! -e "$path" ] || say "$path stays: it is not of the agent"
  done
  for worker in $workers; do
    say "the manager still lists the worker, until: skyctl workers remove $worker"
  done
  rm -f "$log"
}

stop_agent() {
  if [ -e "$unit_file" ]; then
    logged systemctl disable --now skypanel-worker || fail 64 "skypanel-worker cannot be stopped" "see: systemctl status skypanel-worker"
    rm -f "$unit_file"
    logged systemctl daemon-reload
  fi
  logged systemctl reset-failed skypanel-worker || true # where it has failed it would be remembered
}

leave_swarm() { # only the one that the script has joined
  if [ ! -e "$joined" ]; then return; fi
  if [ -S /var/run/docker.sock ] || command -v dockerd >/dev/null 2>&1; then
    if [ -e "$runner" ]; then
      sh "$runner" -c "$(leave_program)"
    else
      "$venv/bin/python" -I -c "$(leave_program)"
    fi || return 1
  fi
  rm -f "$joined"
}

leave_program() { # over the socket, for the docker command may be missing
  cat <<'PYTHON'
import sys, httpx
try:
    with httpx.Client(transport=httpx.HTTPTransport(uds="/var/run/docker.sock"), timeout=60) as engine:
        info = engine.get("http://docker/info").raise_for_status().json()
        if info["Swarm"]["LocalNodeState"] != "inactive":
            sys.stderr.write("skypanel-worker: leaving the swarm\n")
            answer = engine.post("http://docker/swarm/leave")
            if answer.is_error:
                sys.exit("error: " + answer.text.strip())
except httpx.HTTPError as error:
    sys.exit("error: the Docker engine does not answer: " + str(error))
PYTHON
}

remove_packages() { # those that the script has installed, but for what others need: the package manager refuses that
  if [ ! -s "$packages" ]; then return; fi
  say "removing what was installed for the agent alone"
  apt-mark showmanual >"$scratch/manual" 2>/dev/null || true
  set --
  while IFS= read -r name; do
    is_asked_for "$name" || set -- "$@" "$name"
  done <"$packages"
  if command -v dpkg >/dev/null 2>&1; then
    patiently logged dpkg --purge "$@"
  elif command -v apk >/dev/null 2>&1; then
    patiently logged apk del --quiet "$@"
  else
    patiently logged rpm --erase "$@"
  fi || say "those of them that others need by now stay"
}

is_asked_for() { # PACKAGE: somebody else has asked for it by name since
  case $1 in
    python3* | nix-*) return 1 ;; # the script has
  esac
  grep -qxF "${1%:*}" "$scratch/manual"
}

is_account_ours() { # one that was there before has no such comment
  grep -qs "^$account:[^:]*:[^:]*:[^:]*:$account_comment:" /etc/passwd
}

remove_account() {
  is_account_ours || return 0
  logged userdel "$account" || say "the user $account stays: userdel $account"
}

