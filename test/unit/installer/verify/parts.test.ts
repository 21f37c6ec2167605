import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { isOwnMetadata, readCloudInit, readMarkers } from '../../../../installer/verify/console-log.js';
import { LOOKS, ofTheProof } from '../../../../installer/verify/on-nodes.js';
import { createReach, readPing } from '../../../../installer/verify/reach.js';
import { renderReport } from '../../../../installer/verify/report.js';
import { signS3 } from '../../../../installer/verify/sigv4.js';
import { websocketUrl } from '../../../../installer/verify/steps/console.js';
import { faultsOf } from '../../../../installer/verify/steps/control.js';
import { formFields, keepCookies } from '../../../../installer/verify/steps/dashboard.js';
import { placement, serverHint } from '../../../../installer/verify/steps/servers.js';
import { fakeHostKey } from '../openstack/fake-cloud.js';

const KEY = fakeHostKey();

describe('what is left on nodes', () => {
  const id = '0b7a1c52-9d7e-4d4c-8f5e-0123456789ab';
  const project = '0b7a1c529d7e4d4c8f5e0123456789ab';
  const scope = { prefix: 'halligan-verify-3fa9c1', ids: new Set([id, project, 'u1/halligan-verify-3fa9c1-key', 'a']) };

  it('is told by ids and names of the run, in whatever they are wrapped', () => {
    const lines = [
      `libvirt domain ${id}`,
      `folder of a server ${id}_del`,
      `RBD image volume-${id}.deleted`,
      `logical volume _snapshot-${id}`,
      `iSCSI target iqn.2010-10.org.openstack:volume-${id}`,
      `iSCSI session tcp: [1] 10.0.0.5:3260,1 iqn.2010-10.org.openstack:volume-${id} (non-flash)`,
      `OVN port_group pg_${id.replaceAll('-', '_')},"{""neutron:security_group_id""=""${id}""}"`,
      `OVN logical_switch_port 77,"{""neutron:project_id""=""${project}""}"`,
      'OVN logical_switch neutron-5,"{""neutron:network_name""=halligan-verify-3fa9c1-network}"',
    ];
    expect(ofTheProof(lines.join('\n'), scope)).toEqual([
      ...lines.slice(0, 6).map(line => line.split(',')[0]),
      `OVN port_group pg_${id.replaceAll('-', '_')}`,
      'OVN logical_switch_port 77',
      'OVN logical_switch neutron-5',
    ]);
  });

  it('is nothing of others, nor what is no line of a look', () => {
    const others = [
      'libvirt domain ',
      'libvirt domain 0b7a1c52-9d7e-4d4c-8f5e-0123456789ac',
      'folder of a server _base',
      'OVN logical_switch neutron-5,"{""neutron:network_name""=halligan-verify-000000-network}"',
      `warning: ${id}`,
    ];
    expect(ofTheProof(others.join('\n'), scope)).toEqual([]);
  });

  it('is looked for by scripts that a shell can read', () => {
    for (const script of Object.values(LOOKS)) execFileSync('sh', ['-n'], { input: script });
  });
});

describe('a TCP connection', () => {
  it('is taken, or refused by who is there', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const { connects } = createReach();
    expect(await connects('127.0.0.1', port, { timeoutMs: 5000 })).toBe('taken');
    server.close();
    await once(server, 'close');
    expect(await connects('127.0.0.1', port, { timeoutMs: 5000 })).toBe('refused');
  });
});

describe('a console', () => {
  const log = [
    'SeaBIOS (version 1.16)',
    '\u001b[0m[    1.2] virtio_net',
    'GUEST-INIT up=2.60',
    'GUEST-NIC eth0 fa:16:3e:00:00:01',
    'GUEST-DHCP-WAIT nic=eth0 carrier=1 up=9.00',
    'GUEST-DHCP ip=10.5.0.7 mask=24 router=10.5.0.1 mtu=1342 routes=0.0.0.0/0,10.5.0.1 nic=eth0',
    '[   11.0] random: crng init doneGUEST-METADATA hostname=vm-a.novalocal instance=i-0000002a',
    'GUEST-KEY 99',
    `GUEST-HOSTKEY ${KEY}`,
    'GUEST-READY up=12.00',
  ].join('\r\n');

  it('tells address, metadata, host key and readiness, among kernel messages', () => {
    expect(readMarkers(log)).toMatchObject({
      dhcp: { address: '10.5.0.7', mtu: 1342 },
      metadata: { hostname: 'vm-a.novalocal', instance: 'i-0000002a' },
      keyBytes: 99,
      hostKey: KEY,
      ready: true,
    });
  });

  it('of a guest that starts again tells of the last start only', () => {
    const again = readMarkers(`${log}\r\nGUEST-INIT up=2.5\r\nGUEST-NIC eth0`);
    expect(again).toMatchObject({ dhcp: null, hostKey: null, ready: false });
    expect(again.tail).toMatch(/GUEST-INIT up=2\.5 \| GUEST-NIC eth0$/);
  });

  it('that says nothing yet is no error', () => {
    expect(readMarkers('')).toEqual({
      dhcp: null,
      metadata: null,
      keyBytes: null,
      hostKey: null,
      ready: false,
      tail: '',
    });
  });

  it('of cloud-init has the host key in its block', () => {
    const text = `ci-info: | ens3 | True | 10.5.0.9 |\n-----BEGIN SSH HOST KEY KEYS-----\nssh-rsa AAAAB3 root@vm\n${KEY} root@vm\n-----END SSH HOST KEY KEYS-----\nvm login: `;
    expect(readCloudInit(text, { address: '10.5.0.9', name: 'vm' })).toMatchObject({
      dhcp: { address: '10.5.0.9' },
      metadata: { hostname: 'vm' },
      hostKey: KEY,
      ready: true,
    });
  });

  it('proves metadata to be the guest’s own by UUID, number or name', () => {
    const server = { id: '6a0f1c2d-0000-4000-8000-000000000001', name: 'vm-a', instanceName: 'instance-0000002a' };
    const own = (hostname: string, instance: string) => isOwnMetadata({ hostname, instance }, server);
    expect(own('x', server.id)).toBe(true);
    expect(own('vm-a', '6a0f1c2d-0000-4000-8000-000000000002')).toBe(false);
    expect(own('x', 'i-0000002a')).toBe(true);
    expect(own('vm-a.novalocal', 'i-0000002b')).toBe(true);
    expect(own('vm-b', 'i-0000002b')).toBe(false);
  });
});

describe('small things', () => {
  it('the websocket of a console is where noVNC’s page would open it', () => {
    expect(websocketUrl('https://c:6080/vnc_auto.html?path=%3Ftoken%3Dabc')).toBe('wss://c:6080/?token=abc');
    expect(websocketUrl('https://c:6080/vnc_lite.html?path=%3Ftoken%3Dabc&title=x')).toBe('wss://c:6080/?token=abc');
    expect(websocketUrl('http://c:6080/vnc_auto.html?token=abc')).toBe('ws://c:6080/websockify?token=abc');
    expect(websocketUrl('https://c:6080/')).toBeUndefined();
    expect(websocketUrl('nonsense')).toBeUndefined();
  });

  it('pings of iputils and busybox are counted', () => {
    expect(readPing('2 packets transmitted, 1 received, 50% packet loss, time 1ms', 2)).toEqual({
      sent: 2,
      received: 1,
    });
    expect(readPing('3 packets transmitted, 3 packets received, 0% packet loss', 3)).toEqual({ sent: 3, received: 3 });
    expect(readPing('ping: sendmsg: Network is unreachable', 2)).toEqual({ sent: 2, received: 0 });
  });

  it('servers: one per compute, two on the only one, no more than allowed', () => {
    expect(placement(['k1'], 8).map(p => p.host)).toEqual(['k1', 'k1']);
    expect(placement(['k1', 'k2', 'k3'], 2)).toEqual([
      { letter: 'a', host: 'k1' },
      { letter: 'b', host: 'k2' },
    ]);
  });

  it('services that are down or absent are named, disabled ones are not', () => {
    const all = [
      { host: 'k1', what: 'nova-compute', up: true, disabled: false },
      { host: 'k2', what: 'nova-compute', up: false, disabled: false },
      { host: 'k3', what: 'nova-compute', up: false, disabled: true },
    ];
    expect(faultsOf(all, ['k1', 'k9'], 'nova-compute')).toBe('nova-compute on k2 is down; no nova-compute of k9 is up');
    expect(
      faultsOf([{ host: 'vol@rbd', what: 'cinder-volume', up: true, disabled: false }], ['vol'], 'x'),
    ).toBeUndefined();
  });

  it('what to do depends on what Nova says', () => {
    expect(serverHint('No valid host was found.', '')).toContain('nova-scheduler');
    expect(serverHint('Virtual Interface creation failed', 'k1')).toContain('ovn-controller (or the agent) on k1');
    expect(serverHint('boom', 'k1')).toBe('Look at nova-compute’s log on k1.');
  });

  it('a login form gives what a browser would send', () => {
    const html = `<form action="/lang"><input name="language" value="en"></form>
      <form id="" method="POST"><input type='hidden' name='csrfmiddlewaretoken' value='tok'>
      <input type="hidden" name="next" value="/a&amp;b"><input type="text" name="domain" value="">
      <select name="region"><option value="one">1</option><option value="two" selected>2</option></select>
      <input type="submit" name="go" value="Go"></form>`;
    expect(formFields(html)).toEqual({ csrfmiddlewaretoken: 'tok', next: '/a&b', domain: '', region: 'two' });
  });

  it('cookies are kept, the last of a name wins', () => {
    const jar = new Map<string, string>();
    keepCookies(jar, 'a=1; Path=/; HttpOnly\nb=x=y; Secure');
    keepCookies(jar, 'a=2');
    keepCookies(jar, undefined);
    expect([...jar]).toEqual([
      ['a', '2'],
      ['b', 'x=y'],
    ]);
  });
});

describe('a signature for S3', () => {
  // The examples of AWS's page, section "Example Calculations" (bucket examplebucket, us-east-1).
  const credentials = {
    accessKey: 'AKIAIOSFODNN7EXAMPLE',
    secretKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
    region: 'us-east-1',
  };
  const now = Date.UTC(2013, 4, 24);
  const signature = (request: Parameters<typeof signS3>[1]) =>
    /Signature=(\w+)$/.exec(signS3(credentials, request, now)['authorization']!)![1];

  it('is that of AWS’s examples: an object', () => {
    expect(
      signature({
        method: 'GET',
        url: 'https://examplebucket.s3.amazonaws.com/test.txt',
        headers: { range: 'bytes=0-9' },
      }),
    ).toBe('f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41');
  });

  it('and a list with a query', () => {
    expect(signature({ method: 'GET', url: 'https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J' })).toBe(
      '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
    );
  });
});

describe('the report for people', () => {
  it('reads like this', async () => {
    const step = { expectedSeconds: 5, detail: {} };
    await expect(
      renderReport({
        ok: false,
        run: 'halligan-verify-3fa9c1',
        startedAtMs: 0,
        seconds: 93.4,
        aborted: false,
        leftovers: ['server halligan-verify-3fa9c1-a (ACTIVE)'],
        steps: [
          {
            ...step,
            name: 'image',
            title: 'An image is uploaded',
            state: 'passed',
            seconds: 2.14,
            detail: { bytes: 15, madeForTheRun: true },
          },
          {
            ...step,
            name: 'servers',
            title: 'A server on each compute',
            state: 'passed',
            seconds: 61,
            detail: { servers: ['a on k1', 'b on k2'] },
          },
          {
            ...step,
            name: 'dhcp',
            title: 'Guests get their address by DHCP',
            state: 'failed',
            seconds: 30,
            reason: 'The guest of a asked in vain.',
            hint: 'Look at ovn-controller.',
          },
          {
            ...step,
            name: 'ssh',
            title: 'SSH',
            state: 'skipped',
            seconds: 0,
            reason: '"Guests get their address by DHCP" failed, and this needs it.',
          },
        ],
      }),
    ).toMatchFileSnapshot('./report.golden');
  });
});
