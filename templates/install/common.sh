# What the scripts that run in the RAM environment share: messages for the server, and taking disks away from whatever
# holds them. POSIX sh; every value comes in a variable, none is pasted in.
set -eu
LC_ALL=C
export LC_ALL
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 077

now() {
  read -r up _ </proc/uptime
  echo "${up%.*}"
}
START=$(now)

say() { printf 'HALLIGAN %s\n' "$*"; }
STAGE=start
stage() {
  STAGE=$1
  say "stage $1 $(($(now) - START))"
}
# die CODE TEXT: the last word of the script.
die() {
  say "problem $*"
  STATED=1
  exit 1
}
STATED=
finish() {
  code=$?
  trap - EXIT
  cleanup || true
  [ $code -eq 0 ] || [ -n "$STATED" ] || say "problem install-failed The stage $STAGE ended with code $code"
  exit $code
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# part DISK NUMBER: the device of a partition.
part() {
  case $1 in
    *[0-9]) echo "$1p$2" ;;
    *) echo "$1$2" ;;
  esac
}

# partitions DISK: devices of all partitions of a disk.
partitions() {
  for entry in /sys/class/block/"${1##*/}"/"${1##*/}"*; do
    [ -e "$entry/partition" ] && echo "/dev/${entry##*/}"
  done
  return 0
}

# let_go DEVICE: stops volumes, arrays and swap that lie on a device or its partitions, the topmost first.
let_go() {
  for child in $(partitions "$1"); do let_go "$child"; done
  for holder in /sys/class/block/"${1##*/}"/holders/*; do
    [ -e "$holder" ] || continue
    let_go "/dev/${holder##*/}"
    case ${holder##*/} in
      md*) mdadm --quiet --stop "/dev/${holder##*/}" ;;
      dm-*) dmsetup remove --retry "$(cat "$holder/dm/name")" ;;
    esac
  done
  swapoff "$1" 2>/dev/null || true
  for mounted in $(awk -v dev="$1" '$1 == dev { print $2 }' /proc/self/mounts); do umount "$mounted"; done
}

# forget DISK: no trace of file systems, RAID, LVM or partition tables where anybody looks for one. A superblock of
# RAID 1.0 stands at the end of a partition, that of ZFS at both ends: so partitions are looked at before the table goes.
forget() {
  for child in $(partitions "$1"); do
    mdadm --quiet --zero-superblock --force "$child" 2>/dev/null || true
    wipefs --quiet --all --force "$child"
  done
  wipefs --quiet --all --force "$1"
  sgdisk --zap-all "$1" >/dev/null 2>&1 || true
  mib=$(($(blockdev --getsize64 "$1") / 1048576))
  dd if=/dev/zero of="$1" bs=1M count=2 conv=fsync status=none
  dd if=/dev/zero of="$1" bs=1M seek=$((mib - 2)) count=2 conv=fsync status=none
  reread "$1"
}

# reread DISK: the kernel takes over the partition table.
reread() {
  udevadm settle --timeout=30 || true
  tries=0
  until blockdev --rereadpt "$1" 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 10 ] || die install-failed "The kernel does not take over the partition table of $1; something holds the disk"
    sleep 1
  done
  udevadm settle --timeout=30 || true
}

# remove_boot_entries: firmware entries of ours from an earlier installation.
remove_boot_entries() {
  efibootmgr 2>/dev/null | sed -n 's/^Boot\([0-9A-Fa-f]\{4\}\)\*\{0,1\} halligan\( [0-9]*\)\{0,1\}\([[:space:]].*\)\{0,1\}$/\1/p' |
    while read -r entry; do efibootmgr -q -b "$entry" -B; done
}
