import { expect, test } from 'vitest';
import { bootFile, describeClient } from '../../../provisioner/dhcp/client.js';
import { createCodec } from '../../../provisioner/dhcp/codec.js';
import { IPXE_DISCOVER, request } from './packets.js';

const codec = createCodec();
const ORIGIN = 'http://10.99.0.1:7481';
type Options = NonNullable<Parameters<typeof request>[0]>['options'];
const client = (raw: Buffer) => {
  const parsed = codec.parse(raw);
  if (!parsed.ok) throw new Error(parsed.reason);
  return describeClient(parsed.message);
};
const file = (options: Options, noBootFile: string | null = null) =>
  bootFile(client(request({ options: options ?? [] })), noBootFile, ORIGIN);

const pxe = (arch: number): Options => [
  [60, `PXEClient:Arch:${String(arch).padStart(5, '0')}:UNDI:003016`],
  [93, [0, arch]],
];

test.each([
  ['BIOS firmware', pxe(0), 'undionly.kpxe'],
  ['x86-64 UEFI firmware', pxe(7), 'snponly.efi'],
  ['x86-64 UEFI firmware that calls itself EFI byte code', pxe(9), 'snponly.efi'],
  ['firmware that names its architecture in option 60 only', [[60, 'PXEClient:Arch:00007:UNDI:003016']], 'snponly.efi'],
  ['firmware that names no architecture', [[60, 'PXEClient']], 'undionly.kpxe'],
  [
    'firmware that lists a foreign architecture first',
    [
      [60, 'PXEClient'],
      [93, [0, 6, 0, 7]],
    ],
    'snponly.efi',
  ],
  ['iPXE that writes its user class bare', [[77, 'iPXE']], `${ORIGIN}/boot.ipxe`],
  ['iPXE that frames its user class by RFC 3004', [[77, '\x04iPXE']], `${ORIGIN}/boot.ipxe`],
  ['iPXE known by option 175 alone', [[175, [0xb1, 1, 1]]], `${ORIGIN}/boot.ipxe`],
  ['iPXE on UEFI', [...pxe(7)!, [77, 'iPXE']], `${ORIGIN}/boot.ipxe`],
  [
    'iPXE without HTTP: our own iPXE instead',
    [...pxe(0)!, [77, 'iPXE'], [175, [0x21, 1, 1, 0x15, 1, 1]]],
    'undionly.kpxe',
  ],
] as [string, Options, string][])('the boot file suits %s', (_, options, expected) => {
  expect(file(options)).toEqual({ kind: 'file', file: expected, httpClient: false });
});

test('UEFI HTTP boot gets a URL, and option 60 in return', () => {
  const options: Options = [
    [60, 'HTTPClient:Arch:00016:UNDI:003001'],
    [93, [0, 16]],
  ];
  expect(file(options)).toEqual({ kind: 'file', file: `${ORIGIN}/loader/snponly.efi`, httpClient: true });
});

test.each([
  [11, 'ARM64 UEFI'],
  [19, 'ARM64 UEFI, HTTP boot'],
  [10, 'ARM32 UEFI'],
  [6, 'x86 UEFI, 32 bit'],
  [27, 'architecture 27'],
])('architecture %i is recognised and refused with a reason', (arch, label) => {
  expect(file(pxe(arch))).toEqual({
    kind: 'refused',
    reason: `${label} is not supported: there is no boot loader for it`,
  });
});

test('an operating system gets no boot file', () => {
  expect(file([[60, 'dhcpcd-9.4.1:Linux-6.1.0']])).toEqual({ kind: 'none', reason: 'it did not ask for one' });
  expect(file([[77, 'PXELINUX']])).toMatchObject({ kind: 'none' });
});

test('a node that need not boot gets no boot file, with the directory’s reason', () => {
  expect(file(pxe(0), 'it is in maintenance')).toEqual({ kind: 'none', reason: 'it is in maintenance' });
  expect(file([[77, 'iPXE']], 'it is in maintenance')).toMatchObject({ kind: 'none' });
});

test('what it is called in the trace', () => {
  expect(client(IPXE_DISCOVER).label).toBe('iPXE (x86 BIOS)');
  expect(client(request({ options: pxe(7)! })).label).toBe('PXE firmware (x86-64 UEFI)');
  expect(client(request()).label).toBe('an operating system');
});
