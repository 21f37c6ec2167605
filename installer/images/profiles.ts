/**
 * What an image says of itself to Nova, by the kind of system in it. Names and values: nova/objects/image_meta.py and
 * fields.py; https://docs.openstack.org/glance/latest/admin/useful-image-properties.html
 */
import type { ImageImportOptions, ImageProfile } from '../../provisioner/core/cloud-images.js';
import { fail } from '../../provisioner/core/problem.js';

type Properties = Readonly<Record<string, string>>;
/** Parts of a request that only some profiles take. */
type Extra = 'kernel' | 'ramdisk' | 'driverIso' | 'firmware' | 'tpm' | 'guestAgent' | 'commandLine';

export interface Profile {
  readonly sentence: string;
  readonly properties: Properties;
  readonly takes: readonly Extra[];
}

export const PROFILES: Readonly<Record<ImageProfile, Profile>> = {
  plain: {
    sentence: 'Says nothing: Nova’s defaults.',
    properties: {},
    takes: ['firmware', 'guestAgent'],
  },
  'cloud-init': {
    sentence: 'A Linux that configures itself by cloud-init and has virtio drivers.',
    properties: { os_type: 'linux', hw_disk_bus: 'virtio', hw_vif_model: 'virtio', hw_rng_model: 'virtio' },
    takes: ['firmware', 'guestAgent'],
  },
  windows: {
    sentence: 'Windows with virtio drivers, or about to get them from a driver ISO.',
    properties: {
      // Nova: Hyper-V enlightenments, a clock in local time, names of at most 15 characters.
      os_type: 'windows',
      hw_machine_type: 'q35',
      hw_firmware_type: 'uefi',
      hw_disk_bus: 'virtio',
      hw_vif_model: 'virtio',
      hw_video_model: 'virtio',
      // Without it the pointer of the console runs away from the user's.
      hw_pointer_model: 'usbtablet',
      hw_time_hpet: 'true',
    },
    takes: ['driverIso', 'firmware', 'tpm', 'guestAgent'],
  },
  ami: {
    sentence: 'A file system with its kernel (AKI) and initial RAM disk (ARI), made into a disk that boots by itself.',
    properties: { os_type: 'linux', hw_disk_bus: 'virtio', hw_vif_model: 'virtio', hw_firmware_type: 'bios' },
    takes: ['kernel', 'ramdisk', 'guestAgent', 'commandLine'],
  },
};

/** What the extras add to, or change in, the profile. */
const FROM_EXTRAS = {
  guestAgent: { hw_qemu_guest_agent: 'yes' },
  // "optional": a hypervisor without Secure Boot firmware takes the server nevertheless.
  tpm: { hw_tpm_version: '2.0', hw_tpm_model: 'tpm-crb', os_secure_boot: 'optional' },
  /** Until its drivers are installed, Windows starts from a disk that it knows by itself. */
  driverIso: { hw_disk_bus: 'sata' },
} as const;

/** Of the image of a driver ISO. */
export const DRIVER_PROPERTIES: Properties = { halligan_profile: 'drivers' };

const WORDS: Readonly<Record<Extra, string>> = {
  kernel: 'a kernel',
  ramdisk: 'a RAM disk',
  driverIso: 'a driver ISO',
  firmware: 'a firmware',
  tpm: 'a TPM',
  guestAgent: 'a guest agent',
  commandLine: 'a kernel command line',
};

/** What Glance keeps as fields of their own, and what we set. */
const RESERVED =
  /^(id|name|status|visibility|protected|tags|owner|size|virtual_size|checksum|locations|stores|self|file|schema|direct_url|kernel_id|ramdisk_id|block_device_mapping|mappings|bdm_v2|root_device_name|min_(disk|ram)|(disk|container)_format|(created|updated)_at|os_hidden|os_hash_\w+|os_glance_\w+|owner_specified\..*|halligan_.*)$/;

/** All properties of the image but those that name other images. Pure. @throws ProblemError request-invalid */
export function imageProperties(options: ImageImportOptions): Properties {
  const profile = PROFILES[options.profile];
  for (const extra of Object.keys(WORDS) as Extra[]) {
    const value = options[extra];
    if (value !== undefined && value !== false && !profile.takes.includes(extra))
      fail('request-invalid', `The profile ${options.profile} takes no ${WORDS[extra].replace(/^a /, '')}.`);
  }
  if (options.profile === 'ami' && options.kernel === undefined)
    fail('request-invalid', 'The profile ami needs the kernel of the image: its AKI.', {
      hint: 'An image that has its own boot loader is imported with the profile plain or cloud-init.',
    });
  if (options.tpm && options.firmware === 'bios')
    fail('request-invalid', 'A TPM with Secure Boot needs the firmware uefi.');
  for (const [key, value] of Object.entries(options.properties ?? {})) {
    if (!/^[a-z][a-z0-9_:.-]{0,99}$/.test(key)) fail('request-invalid', `${JSON.stringify(key)} is no image property.`);
    if (RESERVED.test(key)) fail('request-invalid', `The property ${key} cannot be set here.`);
    // Nova copies them to each server, in columns of 255 characters.
    if (value.length > 255 || /\p{Cc}/u.test(value))
      fail('request-invalid', `The value of ${key} is too long or no line.`);
  }
  return {
    ...profile.properties,
    ...(options.driverIso ? FROM_EXTRAS.driverIso : {}),
    ...(options.firmware ? { hw_firmware_type: options.firmware } : {}),
    ...(options.tpm ? FROM_EXTRAS.tpm : {}),
    ...(options.guestAgent ? FROM_EXTRAS.guestAgent : {}),
    ...options.properties,
    halligan_profile: options.profile,
  };
}

/** What the operator does with the image next. Pure. */
export function imageNotes(
  options: Pick<ImageImportOptions, 'name' | 'profile' | 'tpm'>,
  drivers: { readonly id: string; readonly sizeGiB: number } | null,
  kvm: boolean,
): string[] {
  const notes: string[] = [];
  if (drivers)
    notes.push(
      `Give a server the drivers as a CD: openstack server create --image '${options.name}' --block-device uuid=${drivers.id},source_type=image,destination_type=volume,volume_size=${drivers.sizeGiB},device_type=cdrom,disk_bus=sata,boot_index=-1,delete_on_termination=true …`,
      `When they are installed, including viostor, a snapshot of the server becomes the image for all: openstack image set --property hw_disk_bus=virtio SNAPSHOT`,
    );
  if (options.profile === 'windows' && !kvm)
    notes.push(
      'No hypervisor here has KVM: a server of this image does not start, because QEMU emulates no Hyper-V for os_type=windows.',
    );
  if (options.tpm)
    notes.push(
      'A server with a TPM finds a host only where swtpm is switched on in Nova and a key manager (Barbican) keeps its secret; the clouds laid down here have neither.',
    );
  return notes;
}
