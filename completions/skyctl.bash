_skyctl_completion() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        [ -z "$candidate" ] || COMPREPLY+=("${candidate%%$'\t'*}")
    done < <(_SKYCTL_COMPLETE=complete_lines _SKYCTL_LINE="${COMP_LINE:0:COMP_POINT}" "$1" 2>/dev/null)
}

complete -o default -F _skyctl_completion skyctl
