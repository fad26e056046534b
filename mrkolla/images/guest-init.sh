#!/bin/sh
# The guest's only process: it loads what a virtual machine needs, asks for an address, says so on the serial console.
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
exec </dev/console >/dev/console 2>&1
echo "mrkolla-guest: booted"
for module in $(cat /modules.order); do
    options=
    # Open vSwitch in user space hands on a packet as it is. A checksum that is left to the network card, as is usual, is
    # never finished then, and the other guest drops the segment.
    case $module in virtio_net.*) options="csum=0 gso=0" ;; esac
    # shellcheck disable=SC2086 # several options are several words
    insmod "/modules/$module" $options || echo "mrkolla-guest: no $module"
done
# a disk or a card that is slow to show up
tries=0
until [ -d /sys/class/net/eth0 ] || [ "$tries" -ge 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
ip link set lo up
ip link set eth0 up
while true; do
    if udhcpc -i eth0 -n -q -t 20 -T 3 -s /dhcp.sh; then
        break
    fi
    echo "mrkolla-guest: no answer by DHCP"
done
while true; do
    sleep 3600
done
