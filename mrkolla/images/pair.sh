#!/bin/sh
# One of two guests that have a network to themselves; its address is the argument. Both answer HTTP. The first asks the
# second once a second, and says on the console when it asks, and what came of it:
#     mrkolla-guest: WHAT NUMBER ask
#     mrkolla-guest: WHAT NUMBER done        (or refused, or hung: no answer within 2 s)
# WHAT is ping, http, or (every ten seconds) dhcp: a whole exchange with the network's DHCP server, as for a new guest.
mkdir -p www
echo "mrkolla" >www/index.html
httpd -p 80 -h www
[ "${1##*.}" = 201 ] || exit 0
other=${1%.*}.202

ask() {
    head="mrkolla-guest: $1 $2"
    shift 2
    echo "$head ask"
    # Killed, since udhcpc that is asked to end says that all went well.
    timeout -s KILL 2 "$@" >/dev/null 2>&1
    case $? in
        0) echo "$head done" ;;
        137) echo "$head hung" ;;
        *) echo "$head refused" ;;
    esac
}

number=0
while true; do
    # What they wait for themselves is longer: whoever ends them knows that nothing came.
    ask ping $number ping -c 1 -W 9 "$other" &
    ask http $number wget -q -T 9 -O /dev/null "http://$other/" &
    [ $((number % 10)) = 0 ] && ask dhcp $number udhcpc -i eth0 -f -n -q -t 1 -T 9 -s /bin/true &
    number=$((number + 1))
    sleep 1
done
