# The files of the agent. Each is replaced in one step, and only if it is not right already.

put() { # FILE MODE: stdin becomes the content of FILE
  content=$(cat)
  rm -f "$1.new" # of a run that was killed
  if [ ! -f "$1" ] || [ "$(cat "$1")" != "$content" ]; then
    cat >"$1.new" <<CONTENT
$content
CONTENT
    rm -f "$applied"
    mv -f "$1.new" "$1"
  fi
  chmod "$2" "$1"
}

write_config() (
  umask 077
  mkdir -p "$config_folder"
  if [ -n "$ca_certificate" ]; then
    put "$ca_file" 600 <<CA
$ca_certificate
CA
  fi
  if [ -n "$release_key" ]; then
    put "$release_key_file" 644 <<KEY
$release_key
KEY
  fi
  put "$config_file" 600 <<CONFIG
$config
CONFIG
)

write_unit() {
  put "$unit_file" 644 <<UNIT
@@unit
UNIT
}

write_runner() { # a release upgrade takes away the Python of the environment, or changes the folder where it looks for libraries
  put "$runner" 755 <<RUNNER
#!/bin/sh
# Runs a module with its arguments, or -c PROGRAM, by the first Python that can use the agent's libraries.
start="import glob, sys; sys.path[:0] = glob.glob('$venv/lib/python3*/site-packages')"
for python in $venv/bin/python $(pythons); do
  "\$python" -I -c "\$start; import httpx, psutil, skyagent" >/dev/null 2>&1 || continue
  exec "\$python" -I -c "\$start
import runpy
del sys.argv[0]
if sys.argv[0] == '-c':
    exec(sys.argv[1])
else:
    runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)" "\$@"
done
echo 'error: no Python here can use the libraries of the agent' >&2
echo 'hint: run its install script again: skyctl workers install-script' >&2
exit 1
RUNNER
}

write_command() { # what people call on the host: skyagent status
  mkdir -p "${command_file%/*}"
  put "$command_file" 755 <<COMMAND
#!/bin/sh
exec /bin/sh $runner skyagent "\$@"
COMMAND
}

write_uninstaller() {
  mkdir -p "${uninstaller%/*}"
  uninstall_script | put "$uninstaller" 755
}

uninstall_script() {
  cat <<'UNINSTALL'
@@uninstaller
UNINSTALL
}

