# Erases the disks of a node that is given back. In: ERASE (quick or full), the disks as common.sh takes them; runs
# concatenated after it.
cleanup() { :; }

stage prepare
find_disks
for disk in $DISKS; do
  [ "$(blockdev --getro "$disk")" = 0 ] || die install-failed "The disk $disk is read-only"
done
stage erase
for disk in $DISKS; do let_go "$disk"; done
for disk in $DISKS; do
  forget "$disk"
  [ "$ERASE" = full ] || continue
  bytes=$(blockdev --getsize64 "$disk")
  how=
  case $disk in
    # The drive's own erase of user data; what it answers for is more than anybody can overwrite.
    /dev/nvme*) nvme format "$disk" --ses=1 --force >/dev/null 2>&1 && how="nvme format" ;;
  esac
  # Zeroes by the kernel: the drive's own command where it has one that promises zeroes, else written.
  [ -n "$how" ] || { blkdiscard --zeroout --force --step 1073741824 "$disk" 2>/dev/null && how="zeroes"; }
  [ -n "$how" ] || { dd if=/dev/zero of="$disk" bs=4M iflag=count_bytes count="$bytes" conv=fsync status=none && how="dd"; }
  say "progress erase $bytes $bytes"
  say "text $disk was erased by $how"
  reread "$disk"
done
[ ! -d /sys/firmware/efi ] || remove_boot_entries
stage sync
sync
