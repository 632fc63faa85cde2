# The command line.

usage() {
  cat <<'USAGE'
usage: sh SCRIPT [--dry-run] [--offline DIR] [--with-nix] [--replace]
       sh SCRIPT --uninstall [--dry-run]
       sh SCRIPT --help

Makes this host a worker of the manager that has made the script. Run again, it says that nothing has changed.

  --dry-run      check this host, and tell what would be done; changes nothing
  --offline DIR  install from a folder of `skyctl workers bundle`: this host need reach nothing but the manager
  --with-nix     install Nix as well, where the distribution has a package of it
  --replace      make a host that is another worker this one; remove that one on its manager first
  --uninstall    remove everything again but Docker (also: skypanel-worker-uninstall)
USAGE
}

read_arguments() {
  action=install dry_run=no bundle='' with_nix=no replace=no
  while [ $# -gt 0 ]; do
    case $1 in
      --dry-run) dry_run=yes ;;
      --with-nix) with_nix=yes ;;
      --replace) replace=yes ;;
      --uninstall) action=uninstall ;;
      --help | -h) action=help ;;
      --offline)
        [ $# -gt 1 ] || fail 11 "--offline: the folder is missing" "give the folder that skyctl workers bundle has made"
        shift
        bundle=$1
        ;;
      *) fail 11 "'$1' is no option of this script" "see: sh SCRIPT --help" ;;
    esac
    shift
  done
}

