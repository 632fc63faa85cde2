"""Completion in shells: scripts of our own, which evaluate nothing of what they are answered. See ADR 0060.

A script hands over the line up to the cursor, and is answered one candidate a line: the word and, behind a tab, what it
is. The library's scripts, which some have installed, are answered by the library; what they insert needs no quoting
either.
"""

import os
import re

from typer import _completion_classes, _completion_shared
from typer._click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

from skyctl.domain.text import printable

LINE = "_SKYCTL_LINE"
CANDIDATE = re.compile(r"[A-Za-z0-9._-]+")

BASH = """\
_skyctl_completion() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        [ -z "$candidate" ] || COMPREPLY+=("${candidate%%$'\\t'*}")
    done < <(_SKYCTL_COMPLETE=complete_lines _SKYCTL_LINE="${COMP_LINE:0:COMP_POINT}" "$1" 2>/dev/null)
}

complete -o default -F _skyctl_completion skyctl
"""

ZSH = """\
#compdef skyctl

_skyctl_completion() {
  local candidate
  local -a candidates shown
  while IFS= read -r candidate; do
    [[ -n $candidate ]] || continue
    candidates+=("${candidate%%$'\\t'*}")
    shown+=("${candidate/$'\\t'/  -- }")
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
"""

FISH = """\
function __skyctl_completion
    set -lx _SKYCTL_COMPLETE complete_lines
    set -lx _SKYCTL_LINE (commandline --current-process --cut-at-cursor | string collect --allow-empty)
    set -l candidates (command skyctl 2>/dev/null | string match --invert '')
    if set -q candidates[1]
        printf '%s\\n' $candidates
    else
        __fish_complete_path (commandline --current-token)
    end
end

complete --command skyctl --no-files --arguments '(__skyctl_completion)'
"""


class Lines(ShellComplete):
    """Answers our scripts, one candidate a line."""

    name = "lines"
    source_template = ""

    def source_vars(self) -> dict[str, str]:
        """Return nothing: there is one script for each shell, and none of this class."""
        return {}

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one at the cursor, and what is typed of that one."""
        # A letter more tells whether the word goes on there: behind a space that is quoted it does.
        *words, at_cursor = split_arg_string(f"{os.environ.get(LINE, '')}x")
        return (words[1:], at_cursor[:-1]) if words else ([], "")

    def format_completion(self, item: CompletionItem) -> str:
        """Return a candidate and what it is, on one line."""
        return f"{item.value}\t{printable(item.help)}" if item.help else str(item.value)

    def complete(self) -> str:
        """Return the candidates. One that a shell might not take for one word, as it stands, is left out."""
        items = self.get_completions(*self.get_completion_args())
        usable = [item for item in items if item.type == "plain" and CANDIDATE.fullmatch(str(item.value))]
        return "\n".join(map(self.format_completion, usable))


def replace_the_librarys() -> None:
    """Have the library print and install our scripts in place of its own."""
    add_completion_class(Lines, Lines.name)
    for library, script in (
        (_completion_classes.BashComplete, BASH),
        (_completion_classes.ZshComplete, ZSH),
        (_completion_classes.FishComplete, FISH),
    ):
        library.source_template = script.rstrip("\n").replace("%", "%%")  # the library formats it with `%`
        _completion_shared._completion_scripts[library.name] = library.source_template
