# Writes a system to the disks of a node. Runs in the RAM environment as a unit of its own, concatenated after common.sh.
# May be started again from the beginning at any time: nothing that it finds of an earlier run is built upon.
#
# In:  METHOD         disk-image | root-archive
#      LAYOUT         plain | lvm | mdraid
#      IMAGE_URL IMAGE_SHA256 RAW_BYTES (disk-image)
#      ROOT_PART ESP_PART (numbers in the disk image; ESP_PART may be empty) ROOT_BYTES (lvm; empty: all) OURS (1: an
#      image built by Halligan)
#      DISK_COUNT, DISK_n_PATH DISK_n_SIZE DISK_n_SERIAL DISK_n_WWN
#      OWNER          GPT name of partitions that are ours; WIPE 1: other people's data may go
#      HOST_NAME CONSOLE ROOT_LABEL
#      NETPLAN        base64; FILE_COUNT, FILE_n: `MODE PATH BASE64` for the target
# Out: the lines of provisioner/install/progress.ts
W=/run/halligan-install
M=$W/target

cleanup() {
  [ -z "${meter:-}" ] || kill "$meter" 2>/dev/null || true
  if mountpoint -q $M; then
    umount -R $M 2>/dev/null || { sleep 1; umount -R $M 2>/dev/null; } || umount -Rl $M
  fi
}

# ---- disks

# foreign DISK: what is on it that is not ours; nothing for a blank disk. Fails when that cannot be told.
foreign() {
  for child in $(partitions "$1"); do
    [ "$(lsblk -dno PARTLABEL "$child")" != "$OWNER" ] || return 0
  done
  # shellcheck disable=SC2046
  types=$(wipefs --noheadings --output TYPE "$1" $(partitions "$1")) || return 1
  echo "$types" | sort -u | tr '\n' ' ' | sed 's/^ *//; s/ *$//'
}

# claim DISK: from now on the disk is ours, whatever interrupts us, and nothing on it boots.
claim() {
  let_go "$1"
  forget "$1"
  sgdisk --new=1:2048:0 --typecode=1:8300 --change-name=1:"$OWNER" "$1" >/dev/null
}

# ---- stream

# fetch: the image, decompressed, on standard output. Its checksum is taken of what came over the wire, on the way.
fetch() {
  rm -f $W/sum.fifo $W/sum $W/curl $W/zstd
  mkfifo $W/sum.fifo
  sha256sum <$W/sum.fifo >$W/sum &
  { curl --silent --show-error --fail --connect-timeout 20 --speed-limit 1024 --speed-time 60 "$IMAGE_URL" 2>$W/curl.err && echo 0 >$W/curl; } |
    tee $W/sum.fifo | { zstd -dcq 2>$W/zstd.err && echo 0 >$W/zstd; }
  wait $! || true
}

# fetched: says whether all of the image came, and that it is the right one. Returns 1 for what a new try may mend.
fetched() {
  [ -s $W/curl ] || { say "warning The image did not come whole: $(head -c 200 $W/curl.err | tr '\n' ' ')"; return 1; }
  read -r sum _ <$W/sum
  [ "$sum" = "$IMAGE_SHA256" ] ||
    die image-checksum "The image came with the checksum $sum instead of $IMAGE_SHA256; the disk was left without anything that boots"
  [ -s $W/zstd ] || die image-format "The image cannot be decompressed: $(head -c 200 $W/zstd.err | tr '\n' ' ')"
}

# meter NAME TOTAL DISK: progress from the kernel's own counter of sectors written.
meter() {
  read -r _ _ _ _ _ _ before _ </sys/class/block/"${3##*/}"/stat
  while sleep 3; do
    read -r _ _ _ _ _ _ after _ </sys/class/block/"${3##*/}"/stat
    done=$(((after - before) * 512))
    [ "$done" -le "$2" ] || done=$2
    say "progress $1 $done $2"
  done
}

# three_times COMMAND…: again when the network failed.
three_times() {
  for try in 1 2 3; do
    if "$@"; then return 0; fi
    sleep $((try * 2))
  done
  die install-failed "The image could not be fetched from $IMAGE_URL: $(head -c 200 $W/curl.err | tr '\n' ' ')"
}

# ---- whole-disk image

# The first MiB (MBR and GPT) is kept back until the checksum is right: a disk that was written halfway, or with a wrong
# image, has no partition table but our claim.
write_image() {
  rm -f $W/head $W/dd
  sparse=
  if [ "$RAW_BYTES" -gt 2147483648 ]; then
    # Mostly gaps: zero the range first, so that gaps need not be written and yet read as zero.
    # One that cannot do that (a range it does not take) is written in full.
    if blkdiscard --zeroout --force --offset 1048576 --length $(((RAW_BYTES + 4095) / 4096 * 4096 - 1048576)) "$1"; then
      sparse=sparse,
    fi
  fi
  fetch | {
    dd bs=1M count=1 iflag=fullblock of=$W/head status=none &&
      dd bs=1M seek=1 iflag=fullblock conv=${sparse}notrunc,fsync of="$1" status=none 2>$W/dd.err && echo 0 >$W/dd
    cat >/dev/null
  }
  [ -s $W/dd ] || ! [ -s $W/curl ] || die install-failed "Writing to $1 failed: $(head -c 200 $W/dd.err | tr '\n' ' ')"
  fetched
}

# The partition table is made in a file as large as the disk and put in place in two writes, the backup first.
write_table() {
  size=$(blockdev --getsize64 "$1")
  rm -f $W/table
  truncate -s "$size" $W/table
  dd if=$W/head of=$W/table bs=1M conv=notrunc status=none
  sgdisk --move-second-header $W/table >/dev/null
  info=$(sgdisk --info="$ROOT_PART" $W/table)
  first=$(echo "$info" | sed -n 's/^First sector: \([0-9]*\).*/\1/p')
  last=$(echo "$info" | sed -n 's/^Last sector: \([0-9]*\).*/\1/p')
  code=$(echo "$info" | sed -n 's/^Partition GUID code: \([0-9A-Fa-f-]*\).*/\1/p')
  [ -n "$first" ] && [ -n "$code" ] || die image-format "The disk image has no partition $ROOT_PART"
  # A root partition with another one behind it stays as large as it is.
  end=$last
  behind=$(sgdisk --print $W/table | awk -v last="$last" '$1 ~ /^[0-9]+$/ && $2 > last' | wc -l)
  [ "$behind" -gt 0 ] || end=0
  sgdisk --delete="$ROOT_PART" --new="$ROOT_PART:$first:$end" --typecode="$ROOT_PART:$code" \
    --change-name="$ROOT_PART:$OWNER" $W/table >/dev/null
  [ "$OURS" != 1 ] || sgdisk --randomize-guids $W/table >/dev/null
  sectors=$((size / 512))
  dd if=$W/table of="$1" bs=512 skip=$((sectors - 33)) seek=$((sectors - 33)) count=33 conv=notrunc,fsync status=none
  dd if=$W/table of="$1" bs=1M count=1 conv=notrunc,fsync status=none
  rm -f $W/table
  reread "$1"
}

grow_root() {
  kind=$(blkid -o value -s TYPE "$ROOT" || true)
  case $kind in
    ext4)
      # Nodes that were written from one image must not share a name that they boot by.
      [ "$OURS" != 1 ] || tune2fs -U random "$ROOT" >/dev/null
      mount -t ext4 "$ROOT" $M
      resize2fs "$ROOT" >/dev/null 2>&1 || die install-failed "The root file system on $ROOT cannot be grown"
      ;;
    xfs) mount -t xfs "$ROOT" $M && xfs_growfs $M >/dev/null ;;
    *) die image-format "The root file system of the image is ${kind:-unknown}, neither ext4 nor xfs" ;;
  esac
}

# ---- LVM and RAID from the root archive

# BIOS boot and ESP on every disk, the rest for volumes.
partition_disk() {
  case $LAYOUT in
    lvm) code=8e00 ;;
    mdraid) code=fd00 ;;
    *) code=8304 ;;
  esac
  sgdisk --clear --new=14:0:+4M --typecode=14:ef02 --change-name=14:bios --new=15:0:+106M --typecode=15:ef00 \
    --change-name=15:esp --new=1:0:0 --typecode=1:$code --change-name=1:"$OWNER" "$1" >/dev/null
  reread "$1"
  wipefs --quiet --all --force "$(part "$1" 1)" "$(part "$1" 15)"
}

make_filesystems() {
  for disk in $DISKS; do mkfs.vfat -F 32 -n UEFI "$(part "$disk" 15)" >/dev/null; done
  volume=$(part "$DISK1" 1)
  # Names that no other disk of this machine has, whatever was installed there before.
  tag=$(cut -c1-8 /proc/sys/kernel/random/uuid)
  case $LAYOUT in
    lvm)
      pvcreate --quiet --yes --force --force "$volume" >/dev/null
      vgcreate --quiet "hal$tag" "$volume" >/dev/null
      if [ -n "$ROOT_BYTES" ]; then room="--size ${ROOT_BYTES}b"; else room='--extents 100%FREE'; fi
      # shellcheck disable=SC2086
      lvcreate --quiet --yes --wipesignatures y $room --name root "hal$tag" >/dev/null
      ROOT=/dev/hal$tag/root
      ;;
    mdraid)
      ROOT=/dev/md/$tag
      # shellcheck disable=SC2046
      mdadm --quiet --create "$ROOT" --run --metadata=1.2 --level=1 --raid-devices="$DISK_COUNT" --homehost="$HOST_NAME" \
        --name="$tag" --bitmap=internal $(for disk in $DISKS; do part "$disk" 1; done)
      ;;
    *) ROOT=$volume ;;
  esac
  udevadm settle --timeout=30 || true
  mkfs.ext4 -q -F -m 1 -E lazy_itable_init=1,nodiscard -L "$ROOT_LABEL" "$ROOT"
  mount -t ext4 "$ROOT" $M
}

unpack_root() {
  find $M -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +
  rm -f $W/tar
  fetch | {
    tar --extract --directory $M --numeric-owner --preserve-permissions --xattrs --xattrs-include='*' --acls --file - 2>$W/tar.err && echo 0 >$W/tar
    cat >/dev/null
  }
  [ -s $W/tar ] || ! [ -s $W/zstd ] || die install-failed "Unpacking failed: $(head -c 200 $W/tar.err | tr '\n' ' ')"
  fetched
}

install_grub() {
  for dir in dev proc sys; do mount --rbind --make-rslave /$dir $M/$dir; done
  mount -t tmpfs tmpfs $M/run
  mkdir -p $M/run/udev $M/run/lock
  mount --bind /run/udev $M/run/udev
  for disk in $DISKS; do
    chroot $M grub-install --target=i386-pc --recheck "$disk" 2>$W/grub.err ||
      die install-failed "GRUB cannot be installed on $disk: $(tail -n 2 $W/grub.err | tr '\n' ' ')"
  done
  . $M/usr/lib/halligan/efi-files
  mkdir -p $W/esp
  for disk in $DISKS; do
    mount -t vfat "$(part "$disk" 15)" $W/esp
    mkdir -p $W/esp/EFI/BOOT "$W/esp/EFI/$EFI_VENDOR"
    cp "$M$EFI_SHIM" $W/esp/EFI/BOOT/BOOTX64.EFI
    cp "$M$EFI_GRUB" $W/esp/EFI/BOOT/grubx64.efi
    cp "$M$EFI_MOK_MANAGER" $W/esp/EFI/BOOT/mmx64.efi
    for stub in BOOT "$EFI_VENDOR"; do
      printf 'search --no-floppy --fs-uuid --set=root %s\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n' \
        "$ROOT_UUID" >"$W/esp/EFI/$stub/grub.cfg"
    done
    umount $W/esp
  done
}

# ---- the system's own files

put_files() {
  n=0
  while [ $n -lt "$FILE_COUNT" ]; do
    eval "entry=\$FILE_$n"
    mode=${entry%% *} rest=${entry#* }
    path=${rest%% *}
    mkdir -p "$M${path%/*}"
    printf %s "${rest#* }" | base64 -d >"$M$path"
    chmod "$mode" "$M$path"
    n=$((n + 1))
  done
}

configure() {
  [ -d $M/etc/cloud ] || die image-format "The image has no cloud-init: nobody could log in"
  # Folders that packages made stay as they are; ours are readable, their secrets are not.
  umask 022
  put_files
  if [ -e $M/usr/sbin/netplan ]; then
    rm -f $M/etc/netplan/*.yaml
    mkdir -p $M/etc/netplan
    (umask 077; printf %s "$NETPLAN" | base64 -d >$M/etc/netplan/50-halligan.yaml)
    # netplan's own generator renders it at boot; cloud-init need not do it a second time.
    printf 'network: {config: disabled}\n' >$M/etc/cloud/cloud.cfg.d/91-halligan-network.cfg
  else
    (umask 077; printf %s "$NETPLAN" | base64 -d >$M/var/lib/cloud/seed/nocloud/network-config)
  fi
  rm -rf $M/var/lib/cloud/instance $M/var/lib/cloud/instances $M/var/lib/cloud/sem
  printf '%s\n' "$HOST_NAME" >$M/etc/hostname
  tr -d - </proc/sys/kernel/random/uuid >$M/etc/machine-id
  chmod 444 $M/etc/machine-id
  # The key is born here and handed over with the result: nobody has to trust a key at first sight.
  rm -f $M/etc/ssh/ssh_host_*
  ssh-keygen -q -t ed25519 -N '' -C "root@$HOST_NAME" -f $M/etc/ssh/ssh_host_ed25519_key
  # Timers that were never run would all run at the first boot.
  mkdir -p $M/var/lib/systemd/timers
  for timer in apt-daily apt-daily-upgrade dpkg-db-backup e2scrub_all fstrim logrotate man-db mdcheck_start mdmonitor-oneshot; do
    touch "$M/var/lib/systemd/timers/stamp-$timer.timer"
  done
  mkdir -p $M/etc/systemd/system/multi-user.target.wants
  ln -sf /etc/systemd/system/halligan-call-home.service $M/etc/systemd/system/multi-user.target.wants/halligan-call-home.service
  [ "$OURS" != 1 ] || configure_ours
}

# What only our own images have: their fstab, grub.cfg and GRUB's answers.
configure_ours() {
  ROOT_UUID=$(blkid -o value -s UUID "$ROOT")
  : >$M/etc/halligan/esp
  for disk in $DISKS; do
    echo "PARTUUID=$(lsblk -dno PARTUUID "$(part "$disk" 15)")" >>$M/etc/halligan/esp
  done
  {
    echo "UUID=$ROOT_UUID / ext4 errors=remount-ro 0 1"
    echo "$(head -n 1 $M/etc/halligan/esp) /boot/efi vfat umask=0077,noauto,nofail 0 0"
  } >$M/etc/fstab
  mkdir -p $M/boot/efi
  sed -i "s|root=LABEL=$ROOT_LABEL|root=UUID=$ROOT_UUID|" $M/boot/grub/grub.cfg
  sed -i "s|console=ttyS0,115200|console=$CONSOLE|" $M/boot/grub/grub.cfg $M/etc/default/grub.d/50-halligan.cfg
  # grub-pc asks for these names when it is upgraded; the image holds a mark in their place.
  names=
  for disk in $DISKS; do
    name=$disk
    for link in /dev/disk/by-id/*; do
      case $link in */lvm-* | */dm-* | */md-*) continue ;; esac
      [ "$(readlink -f "$link")" = "$disk" ] && name=$link && break
    done
    names="$names${names:+, }$name"
  done
  sed -i "s|/dev/halligan-boot-disks|$names|" $M/var/cache/debconf/config.dat
}

# Firmware must ask the network first and fall through to the disk at once: with other entries in between, OVMF and many
# boards lose a minute. The NIC that this boot came from, our disks, the rest.
set_boot_order() {
  remove_boot_entries
  before=$(efibootmgr)
  current=$(echo "$before" | sed -n 's/^BootCurrent: \([0-9A-Fa-f]*\)$/\1/p')
  order=$(echo "$before" | sed -n 's/^BootOrder: \([0-9A-Fa-f,]*\)$/\1/p')
  new=
  count=0
  for disk in $DISKS; do
    count=$((count + 1))
    label=halligan
    [ $count = 1 ] || label="halligan $count"
    efibootmgr -q -C -d "$disk" -p "$ESP_PART" -L "$label" -l '\EFI\BOOT\BOOTX64.EFI'
    entry=$(efibootmgr | sed -n "s/^Boot\([0-9A-Fa-f]\{4\}\)\*\{0,1\} $label\([[:space:]].*\)\{0,1\}\$/\1/p" | head -n 1)
    [ -n "$entry" ] || die install-failed "The firmware did not keep the boot entry of $disk"
    new="$new,$entry"
  done
  rest=
  for entry in $(echo "$order" | tr , ' '); do
    case ",$current$new," in *",$entry,"*) ;; *) rest="$rest,$entry" ;; esac
  done
  if [ -n "$current" ]; then
    list=$current$new$rest
  else
    # Firmware that does not say what it booted: what stood first was the network, or we would not be here.
    rest=${rest#,}
    list=${rest%%,*}$new
    case $rest in *,*) list=$list,${rest#*,} ;; esac
  fi
  efibootmgr -q -o "${list#,}"
}

# ---- main

# What a run that was killed left mounted goes first: nothing below it may be deleted.
cleanup
rm -rf --one-file-system $W
mkdir -p $M

stage prepare
find_disks
if [ "$WIPE" != 1 ]; then
  for disk in $DISKS; do
    found=$(foreign "$disk") || die install-failed "It cannot be told what is on the disk $disk: wipefs failed"
    [ -z "$found" ] || die disk-foreign "The disk $disk carries data that is not ours: $found"
  done
fi

stage claim
for disk in $DISKS; do claim "$disk"; done

ROOT_UUID=
if [ "$METHOD" = disk-image ]; then
  stage write
  meter write "$RAW_BYTES" "$DISK1" &
  meter=$!
  three_times write_image "$DISK1"
  kill "$meter" 2>/dev/null || true
  meter=
  stage partition
  write_table "$DISK1"
  ROOT=$(part "$DISK1" "$ROOT_PART")
  stage grow
  grow_root
  stage configure
  configure
else
  stage partition
  for disk in $DISKS; do partition_disk "$disk"; done
  stage filesystems
  make_filesystems
  stage unpack
  three_times unpack_root
  stage configure
  configure
  # The image's initramfs finds volumes and arrays by their own superblocks, root by its UUID; making a new one here
  # would cost more than all the rest. The next kernel upgrade makes one that knows the array by name.
  if [ "$LAYOUT" = mdraid ]; then
    mkdir -p $M/etc/mdadm
    { echo 'HOMEHOST <system>'; echo 'MAILADDR root'; mdadm --detail --scan "$ROOT"; } >$M/etc/mdadm/mdadm.conf
  fi
  stage bootloader
  install_grub
fi

if [ -d /sys/firmware/efi ]; then
  stage boot-order
  [ -n "$ESP_PART" ] || die image-format "The image has no EFI system partition, the node boots by UEFI"
  set_boot_order
fi

stage sync
read -r type key _ <$M/etc/ssh/ssh_host_ed25519_key.pub
cleanup
let_go_all() { for disk in $DISKS; do let_go "$disk"; done; }
[ "$LAYOUT" = plain ] || let_go_all
sync
say "result {\"hostKey\":\"$type $key\"}"
