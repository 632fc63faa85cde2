#compdef skyctl

_skyctl_completion() {
  local candidate
  local -a candidates shown
  while IFS= read -r candidate; do
    [[ -n $candidate ]] || continue
    candidates+=("${candidate%%$'\t'*}")
    shown+=("${candidate/$'\t'/  -- }")
  done < <(_SKYCTL_COMPLETE=complete_lines _SKYCTL_LINE="${(j: :)words[1,CURRENT]}" "${words[1]}" 2>/dev/null)
  if (( $#candidates )); then
    compadd -l -d shown -a candidates
  else
    _files
  fi
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _skyctl_completion "$@"
else
  compdef _skyctl_completion skyctl
fi
