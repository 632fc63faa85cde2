# The agent in an environment of its own.

agent_archive() {
  cat <<'AGENT'
@@agent
AGENT
}

requirements() { # every library with the checksums of what may be installed as it
  cat <<'REQUIREMENTS'
@@requirements
REQUIREMENTS
}

up_to_date() { # sets $release
  release="skyagent $agent_sha256 requirements $requirements_sha256"
  [ "$(cat "$venv/release" 2>/dev/null)" = "$release" ] &&
    "$venv/bin/python" -I -c 'import httpx, psutil, skyagent' 2>/dev/null
}

install_agent() {
  if up_to_date; then return; fi
  say "installing skyagent $agent_version in $home"
  rm -rf "$venv.new"
  mkdir -p "$home"
  logged "$python" -I -m venv "$venv.new" || fail 41 "no virtual environment could be made in $home" "see why in the log"
  unpack_agent "$venv.new/bin/python"
  install_libraries
  prove_environment
  echo "$release" >"$venv.new/release"
  rm -rf "$applied" "$venv"
  mv "$venv.new" "$venv"
}

unpack_agent() { # PYTHON: unpacks into the environment of that interpreter
  gzip -dc "$scratch/skyagent.tar.gz" | tar -x -f - -C "$("$1" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
}

install_libraries() {
  if [ -n "$bundle" ]; then
    remedy="make the bundle with this manager, for $(uname -m) (pip's output is in the log)"
    set -- --no-index --find-links "$bundle/wheels"
  else
    remedy="this host must reach PyPI or a mirror of it (pip's output is in the log), or take them from a bundle: --offline DIR"
    set -- --retries 5
  fi
  # where packages come from is the host's matter, where they go is not
  unset PIP_PYTHON PIP_DRY_RUN
  set -- --no-user --target= "$@"
  settings=$("$venv.new/bin/python" -I -m pip config list 2>/dev/null | sed -n "s/^[a-z:]*\.\([a-z]*\)='.*/ \1 /p") || settings=
  case $settings in *" prefix "*) set -- --prefix="$venv.new" "$@" ;; esac # there is no word for none
  case $settings in *" root "*) set -- --root=/ "$@" ;; esac
  logged "$venv.new/bin/python" -I -m pip install --no-cache-dir --quiet --no-input --disable-pip-version-check --no-deps --require-hashes \
    --only-binary :all: --requirement "$scratch/requirements.txt" "$@" ||
    fail 42 "pip could not install the agent's libraries" "$remedy"
}

prove_environment() { # before the one that is there is taken away: a setting of pip may have led it elsewhere
  logged "$venv.new/bin/python" -I -c 'import sys, httpx, psutil, skyagent
for each in (httpx, psutil, skyagent):
    assert each.__file__.startswith(sys.prefix), each' ||
    fail 42 "pip has not put the agent's libraries into $venv.new" "see why in the log, and which settings it has: pip config list"
}

