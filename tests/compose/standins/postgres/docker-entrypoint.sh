#!/bin/sh
# As the official image's: the first start makes the data folder for POSTGRES_USER with POSTGRES_PASSWORD (or _FILE). No scripts.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    password=$(mktemp)
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then cat "$POSTGRES_PASSWORD_FILE"; else printf %s "${POSTGRES_PASSWORD:?}"; fi > "$password"
    eval "initdb -D \"$PGDATA\" -U \"${POSTGRES_USER:-postgres}\" --pwfile=\"$password\" --auth-local=trust --auth-host=scram-sha-256 --no-instructions ${POSTGRES_INITDB_ARGS:-}"
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    rm "$password"
fi
exec "$@"
