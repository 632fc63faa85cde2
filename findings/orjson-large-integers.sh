#!/bin/sh
# orjson reads an integer beyond 64 bits as a float, without an error, and refuses to write that same integer.
# Python's own json gives the integer. A field that must be whole has to check the type of what was read.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check orjson==3.13.0

"$folder/venv/bin/python" - <<'END'
import json
import sys

import orjson

LARGEST = 2**64 - 1
print(f"orjson {orjson.__version__}")
for number in (LARGEST, LARGEST + 1):
    print(f"loads({number}): orjson {orjson.loads(str(number))!r}, json {json.loads(str(number))!r}")
try:
    orjson.dumps(LARGEST + 1)
    refusal = ""
except TypeError as error:
    refusal = str(error)
print(f"dumps({LARGEST + 1}): {refusal or 'written'}")

largest, beyond = orjson.loads(str(LARGEST)), orjson.loads(str(LARGEST + 1))
same = type(largest) is int and largest == LARGEST and type(beyond) is float and bool(refusal)
print("as found" if same else "CHANGED")
sys.exit(not same)
END
