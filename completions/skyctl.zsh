
#compdef skyctl

_skyctl_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _SKYCTL_COMPLETE=complete_zsh skyctl)
}

compdef _skyctl_completion skyctl

