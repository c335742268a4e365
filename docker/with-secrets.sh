#!/bin/sh
# Starts a program in production: each file in /run/secrets becomes the setting of its name, and ${NAME} of a secret in the settings that
# FROM_SECRETS names is replaced by it. Those that FORGET_SECRETS names are for that alone: the program does not see them. A secret that is
# short, or a setting of development, is refused.
set -eu
refuse() { echo "headrace: production does not start: $*" >&2; exit 1; }
[ "${HEADRACE_PROFILE:-}" = production ] || refuse "HEADRACE_PROFILE is '${HEADRACE_PROFILE:-}' and has to be production"
case "${HEADRACE_WRITE_KEY:-}" in
    "" | hrk_*) ;;
    *) refuse "HEADRACE_WRITE_KEY is a key of development: make keys with \`headrace keys make\`" ;;
esac
for name in POSTGRES_PASSWORD MINIO_ROOT_PASSWORD REDIS_PASSWORD COLLECTOR_PSEUDONYM_KEY PRIVACY_KEY AIRFLOW_ADMIN_PASSWORD AIRFLOW_JWT_SECRET \
    AIRFLOW_FERNET_KEY SUPERSET_ADMIN_PASSWORD SUPERSET_VIEWER_PASSWORD SUPERSET_SECRET_KEY; do
    eval "value=\${$name:-}"
    [ -z "$value" ] || refuse "$name stands in .env, where development has it: leave it empty there, and give it as a secret"
done
for file in /run/secrets/*; do
    [ -f "$file" ] || continue
    name=${file##*/} value=$(cat "$file")
    [ "${#value}" -ge 24 ] || refuse "the secret $name has less than 24 characters: \`make secrets\` writes random ones"
    export "$name=$value"
done
for name in ${FROM_SECRETS:-}; do
    eval "template=\$$name"
    eval "export $name=\"$template\""
done
# shellcheck disable=SC2086 # several names
[ -z "${FORGET_SECRETS:-}" ] || unset $FORGET_SECRETS
exec "$@"
