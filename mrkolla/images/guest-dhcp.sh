#!/bin/sh
# What udhcpc calls: it sets the address that was given and says which.
[ "$1" = bound ] || exit 0
ip addr add "$ip/${mask:-24}" dev "$interface"
[ -n "$router" ] && ip route add default via "${router%% *}"
echo "mrkolla-guest: dhcp $ip"
