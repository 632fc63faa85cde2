#!/bin/sh
# `pip download --platform manylinux_2_17_x86_64` does not find a wheel for manylinux2010, which such a host can install;
# `--platform manylinux2014_x86_64` finds it. PEP 600 defines the second name as an alias of the first, but pip adds the
# older platforms only to the old names. Whoever downloads for another host has to ask for both.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pip==26.3
"$folder/venv/bin/pip" --version | cut -d ' ' -f 1-2

wanted=psutil==7.2.2
for platform in manylinux_2_17_x86_64 manylinux2014_x86_64; do
    echo "pip download --platform $platform $wanted"
    "$folder/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --python-version 3.11 --implementation cp --abi abi3 --platform "$platform" \
        --dest "$folder/$platform" "$wanted" 2>"$folder/errors" || grep '^ERROR: No matching' "$folder/errors" || cat "$folder/errors"
    mkdir -p "$folder/$platform"
    ls "$folder/$platform"
done

if [ -z "$(ls "$folder/manylinux_2_17_x86_64")" ] && [ -n "$(ls "$folder/manylinux2014_x86_64")" ]; then
    echo "as found"
else
    echo "CHANGED"
    exit 1
fi
