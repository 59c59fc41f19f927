#!/bin/sh
# Becomes PID 1 of a Debian with its own systemd: this machine's files, none of its services.
#
#     unshare --fork --pid --kill-child --mount --uts --ipc --net --cgroup sh machine.sh DIRECTORY
#
# DIRECTORY is empty; all that the machine writes goes to a tmpfs there, and ends with it. /proc/sys and /sys
# are read-only, since a kernel setting would be that of the machine outside.
set -eu

mount --make-rprivate /
mount -t tmpfs machine "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay machine -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"

mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for each in run tmp var/tmp; do
    mount -t tmpfs machine "$each"
done
chmod 755 run
chmod 1777 tmp var/tmp

mount -t tmpfs -o mode=755 machine dev
for each in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
    # shellcheck disable=SC2086  # a name and two numbers
    set -- $each
    mknod -m 666 "dev/$1" c "$2" "$3"
done
mkdir dev/shm dev/pts
mount -t tmpfs machine dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd

# what is enabled here, logged here or known of systemd here is not for there
rm -rf etc/systemd/system usr/sbin/policy-rc.d etc/systemd/system.conf.d var/log/journal
mkdir etc/systemd/system
for each in apparmor.service console-getty.service getty@tty1.service networking.service \
    systemd-firstboot.service systemd-logind.service systemd-modules-load.service systemd-remount-fs.service \
    systemd-resolved.service systemd-timesyncd.service systemd-udevd.service systemd-journald-audit.socket \
    dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount; do
    ln -s /dev/null "etc/systemd/system/$each"
done
# a database that programs outside go on writing while it is copied to here
rm -rf var/lib/containers/cache
hostname machine
: > etc/machine-id

pivot_root . mnt
umount -l mnt
mount --make-rshared / # as systemd does where it is not in a container: what is mounted later reaches services
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    /lib/systemd/systemd --system --unit=multi-user.target --show-status=no
