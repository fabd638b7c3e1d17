#!/bin/sh
# Run a program on a machine that looks like a Jetson, in a mount namespace of its own (needs root).
# usage: jetson_namespace.sh FOLDER PROGRAM ARGUMENT...
# FOLDER/etc is laid over /etc (nv_tegra_release), /etc, /opt, /run and /var/lib take writes into FOLDER/upper, /dev has
# only the standard nodes and those named in FOLDER/cameras, /proc/meminfo is FOLDER/meminfo.
set -eu
if [ "${JETMASK_NAMESPACE:-}" != "$1" ]; then
    export JETMASK_NAMESPACE="$1"
    exec unshare -m --propagation private sh "$0" "$@"
fi
folder=$1
shift
mkdir -p "$folder/dev"
for place in etc opt run var/lib; do
    name=$(echo "$place" | tr / -)
    mkdir -p "$folder/upper/$name" "$folder/work/$name"
    mount -t overlay none -o "lowerdir=/$place,upperdir=$folder/upper/$name,workdir=$folder/work/$name" "/$place"
done
cp -a "$folder/etc/." /etc/
mount -t tmpfs none "$folder/dev"
for node in null zero full random urandom tty ptmx fd stdin stdout stderr; do
    if [ -e "/dev/$node" ]; then cp -a "/dev/$node" "$folder/dev/"; fi
done
mkdir "$folder/dev/pts" "$folder/dev/shm"
mount --rbind /dev/pts "$folder/dev/pts"
mount -t tmpfs none "$folder/dev/shm"
while read -r camera; do
    mknod "$folder/dev/$camera" c 1 3
done < "$folder/cameras"
mount --rbind "$folder/dev" /dev
mount --bind "$folder/meminfo" /proc/meminfo
unset JETMASK_NAMESPACE
exec "$@"
