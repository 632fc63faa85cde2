# A folder of `skyctl workers bundle`, for a host that reaches nothing but the manager.

check_bundle() {
  [ -n "$bundle" ] || return 0
  [ -r "$bundle/SHA256SUMS" ] || fail 43 "--offline: $bundle holds no SHA256SUMS" "give the folder that skyctl workers bundle has made"
  bundle=$(cd "$bundle" && pwd)
  (cd "$bundle" && sha256sum -c SHA256SUMS) >"$scratch/sums" 2>&1 ||
    fail 43 "--offline: $bundle is damaged: $(grep -v ': OK$' "$scratch/sums" | sed 1q)" "copy it here again, whole"
  (cd "$bundle" && find wheels packages -type f 2>/dev/null) | while IFS= read -r file; do
    grep -qF "  $file" "$bundle/SHA256SUMS" ||
      fail 43 "--offline: $bundle/$file is not in SHA256SUMS" "remove it, or have the bundle made again"
  done
  find_python || bundle_has python || fail 44 "--offline: Python 3.9 or newer with venv is missing here, and in $bundle/packages/python" \
    "install $(python_packages) first, or make the bundle with --packages"
  has_docker || bundle_has docker || fail 44 "--offline: Docker is missing here, and in $bundle/packages/docker" \
    "install $(docker_packages) first, or make the bundle with --packages"
  (cd "$bundle" && sha256sum wheels/* 2>/dev/null) | while read -r sum file; do
    grep -qF "sha256:$sum" "$scratch/requirements.txt" ||
      fail 43 "--offline: $bundle/$file is no library of this script" "make the bundle and the script with the same version of skyctl"
  done
  passed bundle "$bundle is whole"
}

bundle_has() { # python | docker
  [ -n "$bundle" ] && [ "$manager" = apt-get ] && [ -d "$bundle/packages/$1" ]
}

from_bundle() { # python | docker: its packages, where the bundle has them
  bundle_has "$1" && find "$bundle/packages/$1" -name '*.deb'
}

