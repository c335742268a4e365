#!/bin/sh
# As the official image's: ES_JAVA_OPTS, ES_TMPDIR, configuration in config/. Of X-Pack's settings only those of security are known here:
# where it is asked for, front.py stands before the server.
set -eu
home=/usr/share/elasticsearch
if [ "${ES_SETTING_XPACK_SECURITY_ENABLED:-}" = true ]; then
    export FRONT_PORT="$ELASTICSEARCH_BIND_PORT" BEHIND_PORT=9201
    python3 /usr/local/lib/front.py &
    export ELASTICSEARCH_BIND_HOST=127.0.0.1 ELASTICSEARCH_BIND_PORT="$BEHIND_PORT"
fi
exec java -Xss1m -Djava.awt.headless=true -Dfile.encoding=UTF-8 -Djava.io.tmpdir="${ES_TMPDIR:-/tmp}" -Dlog4j2.disable.jmx=true \
    -Dio.netty.noUnsafe=true -Dio.netty.noKeySetOptimization=true -Dio.netty.allocator.numDirectArenas=0 ${ES_JAVA_OPTS:-} \
    --module-path "$home/lib" --add-modules=jdk.net,jdk.management.agent,ALL-MODULE-PATH \
    -cp "$home/launcher" Launcher "$home" "$home/config"
