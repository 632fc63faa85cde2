# Removes everything of ours from this host, but for Docker.

ours() {
  for path in "$home" "$config_folder" "$state_folder" "$runtime_folder" "$unit_file" "$command_file" "$uninstaller"; do
    [ ! -e "$path" ] || printf '%s\n' "$path"
  done
}

uninstall() {
  case ${1:-} in
    '') ;;
    --dry-run)
      ours | while IFS= read -r path; do say "would remove $path"; done
      say "nothing was changed"
      return
      ;;
    *) fail 11 "'$1' is no option of this script" "it knows --dry-run alone" ;;
  esac
  begin
  open_log
  worker=$(sed -n 's/.*"workerId": "\([^"]*\)".*/\1/p' "$config_file" 2>/dev/null || true)
  stop_agent
  left=yes
  leave_swarm || left=no
  remove_packages
  ours | while IFS= read -r path; do rm -rf "$path"; done
  remove_account
  say "removed: the agent and all its files; Docker stays"
  [ -z "$worker" ] || say "the manager still lists the worker, until: skyctl workers remove $worker"
  [ "$left" = yes ] || fail 65 "this host could not leave the swarm" "run here: docker swarm leave"
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
  [ "$(docker info --format '{{.Swarm.LocalNodeState}}' 2>/dev/null)" != inactive ] || return 0
  say "leaving the swarm"
  logged docker swarm leave
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
    logged dpkg --purge "$@"
  elif command -v apk >/dev/null 2>&1; then
    logged apk del --quiet "$@"
  else
    logged rpm --erase "$@"
  fi || say "those of them that others need by now stay"
}

is_asked_for() { # PACKAGE: somebody else has asked for it by name since
  case $1 in
    python3* | nix-*) return 1 ;; # the script has
  esac
  grep -qxF "${1%:*}" "$scratch/manual"
}

remove_account() {
  ! id "$account" >/dev/null 2>&1 || logged userdel "$account" || say "the user $account stays: userdel $account"
}

