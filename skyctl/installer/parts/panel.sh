# The web panel's former agent, a program for Node.js, beside its configuration: everybody may read that, and the token
# in it is good for ten years. Whatever else has such a name is left alone.

panel_folder_of() { # UNIT: prints the folder of the agent that it starts; nothing where it starts something else
  sed -n 's,^ExecStart=.*[ =]\(/[^ ]*\)/worker-agent\.js.*,\1,p' "$1" 2>/dev/null | sed 1q
}

panel_folders() { # prints its own place, and wherever else a unit starts it
  {
    printf '%s\n' "$home"
    for unit in "$units"/*.service; do panel_folder_of "$unit"; done
  } | grep -vxF "$config_folder" | sort -u
}

panel_configs() { # prints them
  panel_folders | while IFS= read -r folder; do
    file=$folder/config.json
    if grep -qs '"authToken"' "$file" && [ -n "$(manager_in "$file")" ] && [ -n "$(worker_in "$file")" ]; then
      printf '%s\n' "$file"
    fi
  done
}

panel_files() { # prints all that is left of it, but for a unit of the name of ours
  configs=$(panel_configs)
  programs=$(panel_folders | while IFS= read -r folder; do
    if grep -qs '/api/workers/.*/heartbeat' "$folder/worker-agent.js"; then printf '%s\n' "$folder/worker-agent.js"; fi
  done)
  for unit in "$units"/*.service; do
    folder=$(panel_folder_of "$unit")
    if [ -n "$folder" ] && [ "$unit" != "$unit_file" ] &&
      printf '%s\n' "$configs" "$programs" | grep -qxF -e "$folder/config.json" -e "$folder/worker-agent.js"; then
      printf '%s\n' "$unit"
    fi
  done
  printf '%s\n' "$programs" "$configs" | sed '/^$/d'
}

is_panel_run() { # CONFIG: whether a unit starts its agent
  for unit in "$units"/*.service; do
    if [ "$(panel_folder_of "$unit")" = "${1%/*}" ]; then return; fi
  done
  return 1
}

tell_panel_agent() { # what would become of it
  panel_files | while IFS= read -r file; do say "would remove $file of the web panel's former agent"; done
}

remove_panel_agent() {
  left=$(panel_files)
  [ -n "$left" ] || return 0
  while IFS= read -r file; do
    case $file in
      *.service)
        logged systemctl disable --now "${file##*/}" || fail 64 "${file##*/} cannot be stopped" "see: systemctl status ${file##*/}"
        rm -rf "$file.d" "$file"
        ;;
      *)
        rm -f "$file"
        rmdir "${file%/*}" 2>/dev/null || true
        ;;
    esac
    say "removed $file of the web panel's former agent"
  done <<LEFT
$left
LEFT
  logged systemctl daemon-reload
}

