#!/bin/bash
# The first process of the guest: what the host has, below a throw-away overlay, then the
# command. Its status is left in the place that is shared.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -n -t proc proc /proc
mount -n -t sysfs sys /sys
modprobe -d "$LAB_KERNEL" -a overlay
mount -n -t tmpfs tmpfs /mnt
mkdir /mnt/up /mnt/work /mnt/root
mount -n -t overlay overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work /mnt/root
mkdir -p /mnt/root/lib/modules /mnt/root/.old
mount -n --bind "$LAB_KERNEL/lib/modules" /mnt/root/lib/modules
cd /mnt/root && pivot_root . .old
mount -n --move /.old/proc /proc
mount -n --move /.old/sys /sys
mount -n -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -n -t devpts pts /dev/pts
mount -n -t tmpfs shm /dev/shm
mount -n -t tmpfs run /run
umount -n -l /.old
mount -n -t virtiofs shared "$LAB_SHARED"
exec </dev/null >/dev/hvc0 2>&1
stty -F /dev/hvc0 raw -echo
ip link set lo up
mount -n -t cgroup2 cgroup /sys/fs/cgroup 2>/dev/null
ulimit -l unlimited
bash "$LAB_SHARED/command"
echo $? >"$LAB_SHARED/status"
sync
echo o >/proc/sysrq-trigger
sleep 60
