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

# ---- which disk is which. In: DISK_COUNT, DISK_n_PATH DISK_n_SIZE DISK_n_SERIAL DISK_n_WWN of the inventory

# has_wwn DEVICE WWN, has_serial DEVICE SERIAL: does the disk say so of itself, by any of the ways that the inventory asks?
has_wwn() {
  [ "$(lsblk -dno WWN "$1" | tr -d ' ')" = "$2" ] || grep -qsxF -- "$2" "/sys/class/block/${1##*/}/wwid" "/sys/class/block/${1##*/}/device/wwid"
}
has_serial() {
  for file in device/serial serial; do
    [ "$(sed 's/^ *//; s/ *$//' "/sys/class/block/${1##*/}/$file" 2>/dev/null)" != "$2" ] || return 0
  done
  [ "$(lsblk -dno SERIAL "$1" | sed 's/^ *//; s/ *$//')" != "$2" ] || return 0
  [ "$(smartctl -i "$1" 2>/dev/null | sed -n 's/^Serial [Nn]umber: *//p' | sed 's/ *$//')" = "$2" ]
}

# disk_of PATH SIZE SERIAL WWN: where that disk is now. Kernel names move between boots and when disks come and go, so the
# name alone decides only for a disk that has no identity; one that shows another identity is another disk.
disk_of() {
  for sys in /sys/class/block/*; do
    dev=/dev/${sys##*/}
    [ ! -e "$sys/partition" ] && [ -e "$sys/size" ] || continue
    [ $(($(cat "$sys/size") * 512)) = "$2" ] || continue
    if [ -n "$4" ]; then
      has_wwn "$dev" "$4" || continue
    fi
    if [ -n "$3" ]; then
      has_serial "$dev" "$3" || continue
    elif [ -z "$4" ]; then
      [ "$dev" = "$1" ] || continue
    fi
    echo "$dev"
    return 0
  done
  return 1
}

# find_disks: DISKS and DISK1, the devices of the plan's disks as they are called now.
find_disks() {
  DISKS=
  n=1
  while [ $n -le "$DISK_COUNT" ]; do
    eval "path=\$DISK_${n}_PATH size=\$DISK_${n}_SIZE serial=\$DISK_${n}_SERIAL wwn=\$DISK_${n}_WWN"
    # shellcheck disable=SC2154
    disk=$(disk_of "$path" "$size" "$serial" "$wwn") || die disk-no-match "The disk $path (serial ${serial:-none}) is not there any more"
    case " $DISKS " in *" $disk "*) die disk-no-match "Two disks of the plan are one: $disk" ;; esac
    DISKS="$DISKS${DISKS:+ }$disk"
    # shellcheck disable=SC2034
    [ $n != 1 ] || DISK1=$disk
    n=$((n + 1))
  done
}

# let_go DEVICE: stops volumes, arrays and swap that lie on a device or its partitions, the topmost first. A subshell,
# because it calls itself and sh has no other variables of one's own.
let_go() (
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
  # Volumes are mounted by their mapper's name.
  name=$(cat /sys/class/block/"${1##*/}"/dm/name 2>/dev/null) || name=
  for mounted in $(awk -v dev="$1" -v name="/dev/mapper/$name" '$1 == dev || $1 == name { print $2 }' /proc/self/mounts); do
    umount "$mounted"
  done
)

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

# held DISK: what lies on a disk or its partitions, by the kernel's names.
held() {
  for device in "$1" $(partitions "$1"); do
    for holder in /sys/class/block/"${device##*/}"/holders/*; do
      [ -e "$holder" ] && printf ' %s on %s' "$(cat "$holder/dm/name" 2>/dev/null || echo "${holder##*/}")" "$device"
    done
    awk -v dev="$device" '$1 == dev { printf " %s mounted at %s", dev, $2 }' /proc/self/mounts
  done
  return 0
}

# reread DISK: the kernel takes over the partition table.
reread() {
  udevadm settle --timeout=30 || true
  tries=0
  until blockdev --rereadpt "$1" 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 10 ] ||
      die install-failed "The kernel does not take over the partition table of $1; something holds the disk:$(held "$1")"
    sleep 1
    # What udev had put together again before the signatures were gone.
    let_go "$1"
  done
  udevadm settle --timeout=30 || true
}

# remove_boot_entries: firmware entries of ours from an earlier installation.
remove_boot_entries() {
  efibootmgr 2>/dev/null | sed -n 's/^Boot\([0-9A-Fa-f]\{4\}\)\*\{0,1\} halligan\( [0-9]*\)\{0,1\}\([[:space:]].*\)\{0,1\}$/\1/p' |
    while read -r entry; do efibootmgr -q -b "$entry" -B; done
}
