#!/bin/sh
# Runs a command that fetches something while an image is built, so that it trusts, besides the usual authorities, the one in the build
# secret `extra_ca` (PEM), where there is one: that of a company proxy that opens TLS.
set -eu
extra=/run/secrets/extra_ca
if [ -s "$extra" ]; then
    bundle=$(mktemp)
    cat /etc/ssl/certs/ca-certificates.crt "$extra" > "$bundle" 2> /dev/null || cat "$extra" > "$bundle"
    export SSL_CERT_FILE="$bundle" PIP_CERT="$bundle" REQUESTS_CA_BUNDLE="$bundle" CARGO_HTTP_CAINFO="$bundle" CURL_CA_BUNDLE="$bundle"
fi
exec "$@"
