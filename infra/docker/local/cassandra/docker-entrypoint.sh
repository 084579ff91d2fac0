#!/bin/bash
# The environment into cassandra.yaml, as the official image's entry point does it; then Cassandra.
set -eu
[ "${1:-}" = cassandra ] || exec "$@"

yaml=/etc/cassandra/cassandra.yaml
address=$(hostname -i)
address=${address%% *}

set_to() { # NAME VALUE
  if grep -q "^$1:" "$yaml"; then sed -i "s|^$1:.*|$1: $2|" "$yaml"; else echo "$1: $2" >>"$yaml"; fi
}

listen=${CASSANDRA_LISTEN_ADDRESS:-auto}
[ "$listen" != auto ] || listen=$address
broadcast=${CASSANDRA_BROADCAST_ADDRESS:-$listen}
set_to listen_address "$listen"
set_to broadcast_address "$broadcast"
set_to rpc_address "${CASSANDRA_RPC_ADDRESS:-0.0.0.0}"
set_to broadcast_rpc_address "${CASSANDRA_BROADCAST_RPC_ADDRESS:-$broadcast}"
set_to cluster_name "'${CASSANDRA_CLUSTER_NAME:-Test Cluster}'"
set_to num_tokens "${CASSANDRA_NUM_TOKENS:-1}"
set_to endpoint_snitch "${CASSANDRA_ENDPOINT_SNITCH:-SimpleSnitch}"
sed -i "s|seeds: \"[^\"]*\"|seeds: \"${CASSANDRA_SEEDS:-$broadcast}\"|" "$yaml"
printf 'dc=%s\nrack=%s\n' "${CASSANDRA_DC:-dc1}" "${CASSANDRA_RACK:-rack1}" >/etc/cassandra/cassandra-rackdc.properties

heap=${MAX_HEAP_SIZE:-512M}
# Word by word: the JVM_… variables hold several options each.
# shellcheck disable=SC2086
exec java -Xms"$heap" -Xmx"$heap" ${HEAP_NEWSIZE:+-Xmn$HEAP_NEWSIZE} @/opt/cassandra/java.args ${JVM_OPTS:-} \
  ${JVM_EXTRA_OPTS:-} org.apache.cassandra.service.CassandraDaemon
