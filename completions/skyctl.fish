function __skyctl_completion
    set -lx _SKYCTL_COMPLETE complete_lines
    set -lx _SKYCTL_LINE (commandline --current-process --cut-at-cursor | string collect --allow-empty)
    set -l candidates (command skyctl 2>/dev/null | string match --invert '')
    if set -q candidates[1]
        printf '%s\n' $candidates
    else
        __fish_complete_path (commandline --current-token)
    end
end

complete --command skyctl --no-files --arguments '(__skyctl_completion)'
