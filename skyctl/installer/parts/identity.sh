# As whom the agent runs.

choose_identity() { # sets $identity, the user of the agent, and $docker_group, by which that user may ask the engine
  identity=root
  docker_group=
  socket=$(stat -L -c '%A %G' /var/run/docker.sock 2>/dev/null) || socket=
  case $socket in
    "" | *" root" | *" UNKNOWN") reason="the Docker socket belongs to no group but root's" ;;
    s???rw*)
      reason="the user skyagent cannot be made"
      if id -u skyagent >/dev/null 2>&1 ||
        logged useradd --system --comment "$account_comment" --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin skyagent; then
        identity=skyagent
        docker_group=${socket#* }
        return
      fi
      ;;
    *) reason="the group of the Docker socket may not use it" ;;
  esac
  say "the agent will run as root, without its capabilities: $reason"
}

hand_over() { # the agent reads its program and its configuration; what it writes, systemd gives to it
  group=$(id -gn "$identity")
  chmod go+rx "$home" # whatever the umask of whoever runs this is
  chmod -R go+rX "$venv"
  chown "root:$group" "$config_folder"
  chmod 750 "$config_folder"
  for file in "$config_folder"/*; do
    [ "$file" != "$release_key_file" ] || continue # root's: the agent must not choose who signs its releases
    chown "$identity:$group" "$file"
    chmod 600 "$file"
  done
}

