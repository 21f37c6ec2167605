/** Names of the numbers on the wire (https://www.iana.org/assignments/bootp-dhcp-parameters). */

export const OPTION = {
  PAD: 0,
  SUBNET_MASK: 1,
  ROUTER: 3,
  DOMAIN_NAME_SERVER: 6,
  HOST_NAME: 12,
  DOMAIN_NAME: 15,
  BROADCAST_ADDRESS: 28,
  NTP_SERVERS: 42,
  REQUESTED_IP_ADDRESS: 50,
  LEASE_TIME: 51,
  OVERLOAD: 52,
  MESSAGE_TYPE: 53,
  SERVER_IDENTIFIER: 54,
  PARAMETER_REQUEST_LIST: 55,
  MESSAGE: 56,
  MAXIMUM_MESSAGE_SIZE: 57,
  RENEWAL_TIME: 58,
  REBINDING_TIME: 59,
  VENDOR_CLASS: 60,
  CLIENT_IDENTIFIER: 61,
  TFTP_SERVER_NAME: 66,
  BOOTFILE_NAME: 67,
  /** RFC 3004; iPXE sends bare text. */
  USER_CLASS: 77,
  RELAY_AGENT_INFORMATION: 82,
  /** RFC 4578. */
  CLIENT_ARCH: 93,
  CLIENT_UUID: 97,
  DOMAIN_SEARCH: 119,
  CLASSLESS_STATIC_ROUTE: 121,
  /** https://ipxe.org/howto/dhcpd: iPXE's own encapsulated options. */
  IPXE: 175,
  END: 255,
} as const;

export const MESSAGE_TYPE = {
  DISCOVER: 1,
  OFFER: 2,
  REQUEST: 3,
  DECLINE: 4,
  ACK: 5,
  NAK: 6,
  RELEASE: 7,
  INFORM: 8,
} as const;
export type MessageTypeName = keyof typeof MESSAGE_TYPE;

export const messageTypeName = (type: number): string =>
  (Object.keys(MESSAGE_TYPE) as MessageTypeName[]).find(name => MESSAGE_TYPE[name] === type) ?? `message type ${type}`;

/** RFC 4578 section 2.1 and its registry "Processor Architecture Types". */
export const CLIENT_ARCH = {
  BIOS: 0,
  EFI_IA32: 6,
  EFI_X86_64: 7,
  /** Named EFI byte code by the registry; x86-64 firmware sends it too (errata of RFC 4578). */
  EFI_BC: 9,
  EFI_ARM32: 10,
  EFI_ARM64: 11,
  EFI_IA32_HTTP: 15,
  EFI_X86_64_HTTP: 16,
  EFI_ARM32_HTTP: 18,
  EFI_ARM64_HTTP: 19,
  BIOS_HTTP: 20,
} as const;

const ARCH_LABELS: Readonly<Record<number, string>> = {
  [CLIENT_ARCH.BIOS]: 'x86 BIOS',
  [CLIENT_ARCH.EFI_IA32]: 'x86 UEFI, 32 bit',
  [CLIENT_ARCH.EFI_X86_64]: 'x86-64 UEFI',
  [CLIENT_ARCH.EFI_BC]: 'x86-64 UEFI',
  [CLIENT_ARCH.EFI_ARM32]: 'ARM32 UEFI',
  [CLIENT_ARCH.EFI_ARM64]: 'ARM64 UEFI',
  [CLIENT_ARCH.EFI_IA32_HTTP]: 'x86 UEFI, 32 bit, HTTP boot',
  [CLIENT_ARCH.EFI_X86_64_HTTP]: 'x86-64 UEFI, HTTP boot',
  [CLIENT_ARCH.EFI_ARM32_HTTP]: 'ARM32 UEFI, HTTP boot',
  [CLIENT_ARCH.EFI_ARM64_HTTP]: 'ARM64 UEFI, HTTP boot',
  [CLIENT_ARCH.BIOS_HTTP]: 'x86 BIOS, HTTP boot',
};

export const archLabel = (arch: number): string => ARCH_LABELS[arch] ?? `architecture ${arch}`;
