# Makes the MariaDB at HERE hold a copy of the keystone database at THERE, and follow it by GTID.
#
#     bash -s THERE HERE PORT ADMIN < mrkolla-replica.sh
#
# In the environment: MYSQL_PWD (of ADMIN, at both), REPLICA_PASSWORD (of the user that follows), KEYSTONE_PASSWORD (of
# the Keystone that reads the copy). A copy that follows already is left alone. What comes of the AR's other databases
# is left out by replicate_wild_do_table, in the configuration of HERE.
set -euo pipefail
there=$1 here=$2 port=$3 admin=$4

at() {
    local host=$1
    shift
    mariadb --host "$host" --port "$port" --user "$admin" --connect-timeout 10 "$@"
}
state() { at "$here" --execute 'SHOW SLAVE STATUS\G' | awk -v key="$1:" '$1 == key { print $2 }'; }
follows() {
    [ "$(state Master_Host)" = "$there" ] && [ "$(state Slave_IO_Running)" = Yes ] && [ "$(state Slave_SQL_Running)" = Yes ]
}

# After a link was cut the copy connects again by itself, within seconds: it is not made anew for that.
for _ in $(seq 30); do
    if follows || [ "$(state Master_Host)" != "$there" ]; then break; fi
    sleep 1
done
if ! follows; then
    at "$there" <<SQL
CREATE USER IF NOT EXISTS mrkolla_replica@'%';
ALTER USER mrkolla_replica@'%' IDENTIFIED BY '$REPLICA_PASSWORD';
GRANT REPLICATION SLAVE ON *.* TO mrkolla_replica@'%';
SQL
    # The dump says at which transaction it was made, and what follows begins there. It is there as a whole before the
    # old copy goes: a link that is lost meanwhile leaves the region that one.
    dump=$(mktemp)
    trap 'rm -f "$dump"' EXIT
    mariadb-dump --host "$there" --port "$port" --user "$admin" --single-transaction --master-data=1 --gtid \
        --databases keystone > "$dump"
    at "$here" --execute 'STOP SLAVE; RESET SLAVE ALL; DROP DATABASE IF EXISTS keystone;'
    at "$here" < "$dump"
    at "$here" <<SQL
CHANGE MASTER TO MASTER_HOST='$there', MASTER_PORT=$port, MASTER_USER='mrkolla_replica',
    MASTER_PASSWORD='$REPLICA_PASSWORD', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=2;
START SLAVE;
SQL
    for _ in $(seq 60); do
        if follows && [ "$(state Seconds_Behind_Master)" = 0 ]; then break; fi
        sleep 1
    done
    follows || { at "$here" --execute 'SHOW SLAVE STATUS\G' | grep -E 'Error|Running' >&2; exit 1; }
    echo copied
fi

# The Keystone that works on the copy may read it. It also notes, of each user, the day of the last login and the failed
# ones, in three columns without which it would answer 500; the AR's next change of such a row brings the AR's back.
at "$here" <<SQL
CREATE USER IF NOT EXISTS keystone@'%';
ALTER USER keystone@'%' IDENTIFIED BY '$KEYSTONE_PASSWORD';
REVOKE ALL PRIVILEGES, GRANT OPTION FROM keystone@'%';
GRANT SELECT ON keystone.* TO keystone@'%';
GRANT UPDATE (failed_auth_count, failed_auth_at) ON keystone.local_user TO keystone@'%';
GRANT UPDATE (last_active_at) ON keystone.user TO keystone@'%';
SQL
