# Runs a member of the AR's Galera cluster, and ends it when it has to begin again.
#
#     bash mrkolla-galera.sh mariadbd-safe [OPTION...]
#
# A member forgets a peer that left in good order, and the AR's MariaDB, when it comes back, calls nobody: each would wait
# for the other. One whose way in failed ("node restart required") stays out for good. So a member that is apart from the
# cluster although the AR's MariaDB answers, for 15 s, is shut down; its container starts it again, and it joins. After a
# cut Galera itself is sooner. While a member gets its data it answers nobody, and is left alone.
set -uo pipefail
defaults=$(printf '%s\n' "$@" | grep '^--defaults-file=')

value() { my_print_defaults $defaults mysqld | sed -n "s/^--$1=//p" | tail -n 1; }
ask() { MYSQL_PWD=${auth#*:} mariadb --no-defaults -N -h "$here" -P "$port" -u "${auth%%:*}" --connect-timeout=5 -e "$1"; }
answers() {
    local peer
    for peer in ${peers//,/ }; do
        timeout 3 bash -c ": < /dev/tcp/${peer%:*}/${peer##*:}" 2>/dev/null && return
    done
    return 1
}
watch() {
    local apart=0 auth here peers port status
    auth=$(value wsrep_sst_auth) here=$(value bind-address) port=$(value port) peers=$(value wsrep_cluster_address)
    peers=${peers#gcomm://}
    while sleep 5 && kill -0 "$1"; do
        status=$(ask "SHOW STATUS LIKE 'wsrep_cluster_status'" 2>/dev/null | cut -f 2)
        if [ -n "$status" ] && [ "$status" != Primary ] && answers; then
            apart=$((apart + 5))
        else
            apart=0
        fi
        if ((apart >= 15)); then
            echo "apart from the cluster for $apart s, and $peers answers: begins again" >&2
            ask SHUTDOWN
            apart=0
        fi
    done
}
watch $$ &
exec "$@"
