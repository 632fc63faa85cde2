# The whole, in order: nothing is changed before everything that can be asked was asked.

preflight() {
  passed root "yes, and systemd runs"
  check_distribution
  check_architecture
  check_worker
  check_agent
  check_disk
  check_folders
  check_nix
  check_bundle
  check_packages
  check_manager
}

plan() {
  find_python || say "would install Python: $(python_packages)"
  has_docker || say "would install Docker: $(docker_packages)"
  [ "$with_nix" = no ] || has_nix || say "would install Nix: $(nix_package)"
  [ -z "$gains" ] || say "would install with all that they need: ${gains% }"
  [ -z "$former" ] || say "would make this host worker $worker_id, and no longer $former"
  tell_panel_agent
  up_to_date || say "would install skyagent $agent_version in $home"
  [ "$(cat "$config_file" 2>/dev/null)" = "$config" ] || say "would write $config_file, and the unit $unit_file"
  [ -z "$release_key" ] || [ "$(cat "$release_key_file" 2>/dev/null)" = "$release_key" ] ||
    say "would pin the key of releases in $release_key_file"
  [ -z "$swarm_address" ] || say "would join the swarm of $swarm_address, unless this host is in one"
  say "nothing was changed"
  tell_next_link
}

install_worker() {
  open_log
  need_python
  [ "$asked" = yes ] || check_manager
  [ "$asked" = yes ] || fail 21 "the manager at $api_url cannot be asked: neither curl, wget, Python nor openssl works here ($trouble)" \
    "repair one of them and run this script again"
  need_docker
  need_nix
  install_agent
  remove_panel_agent
  choose_identity
  write_config
  hand_over
  write_unit
  write_runner
  write_command
  write_uninstaller
  joined_swarm=yes
  join_swarm || joined_swarm=no
  [ -z "$swarm_address" ] || tell_ports
  tell_former
  start_agent
  await_heartbeat
  say "look at it with: systemctl status skypanel-worker; at its log with: journalctl -u skypanel-worker"
  [ "$joined_swarm" = yes ] || fail 50 "this host has not joined the swarm" "remove the cause and run this script again"
}

main() {
  read_arguments "$@"
  case $action in
    help) usage ;;
    uninstall)
      set --
      [ "$dry_run" = no ] || set -- --dry-run
      uninstall_script | sh -s -- "$@"
      ;;
    install)
      begin
      preflight
      if [ "$dry_run" = yes ]; then plan; else install_worker; fi
      ;;
  esac
}

{ main "$@"; }
