#!/bin/sh
# The broker in a container, as `make up` starts it outside of one: by the same server.properties, formatted at the first start.
set -eu
conf=/etc/headrace/kafka
if [ ! -f "$KAFKA_DATA/meta.properties" ]; then
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
    java -Xmx128m -cp '/opt/kafka/libs/*' kafka.tools.StorageTool format "--cluster-id=$id" -c "$conf/server.properties"
fi
exec java -Xms256m -Xmx384m -XX:+UseSerialGC -Djava.awt.headless=true -Dlog4j2.configurationFile="$conf/log4j2.properties" \
    -cp '/opt/kafka/libs/*' kafka.Kafka "$conf/server.properties"
