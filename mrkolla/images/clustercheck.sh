#!/bin/bash
# Tells HAProxy over HTTP whether the local MariaDB is a synced member of its Galera cluster.
# Kolla's image downloads such a script; the environment is kolla-ansible's: MYSQL_USERNAME, MYSQL_PASSWORD (may be
# empty, hence MYSQL_PWD: an empty -p would prompt), MYSQL_HOST, MYSQL_PORT, AVAILABLE_WHEN_DONOR.
read -r -t 2 _ 2>/dev/null
export MYSQL_PWD="${MYSQL_PASSWORD}"
# Without TLS, as every service of Kolla's connects unless it is asked for: the handshake costs more than all else here.
state=$(mariadb -nNE --skip-ssl --connect-timeout="${TIMEOUT:-10}" -u"${MYSQL_USERNAME}" -h"${MYSQL_HOST:-localhost}" \
    -P"${MYSQL_PORT:-3306}" -e "SHOW STATUS LIKE 'wsrep_local_state'" 2>/dev/null | tail -1)
# 4: synced, 2: donor (Galera's wsrep_local_state)
if [ "$state" = 4 ] || { [ "$state" = 2 ] && [ "${AVAILABLE_WHEN_DONOR:-0}" = 1 ]; }; then
    status="200 OK" body="synced"
else
    status="503 Service Unavailable" body="not synced"
fi
printf 'HTTP/1.1 %s\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s\r\n' \
    "$status" $((${#body} + 2)) "$body"
sleep 0.1 # HAProxy must have read the answer before the socket closes
