import { describe, expect, it } from 'vitest';
import { asBoolean, parseIni } from '../../../../installer/security/ini.js';
import { listenerFaults, parseListeners } from '../../../../installer/security/listeners.js';
import { evidenceRequest, tlsProbes } from '../../../../installer/security/request.js';
import { model } from '../../roles/fixture.js';

describe('configuration', () => {
  it('is read by sections: the last value of a key wins, lines go on, comments do not count', () => {
    expect(parseIni('# a = 0\ntop = 1\n[a]\nk = 1\n  and 2\n;k = 3\nk2: v = w\n[b]\n[a]\nk2 = x\nempty =\n')).toEqual({
      DEFAULT: { top: '1' },
      a: { k: '1\nand 2', k2: 'x', empty: '' },
    });
  });

  it('has booleans as oslo.config reads them', () => {
    expect(['True', '1', 'on', 'FALSE', 'no', 'x', undefined].map(asBoolean)).toEqual([
      true,
      true,
      true,
      false,
      false,
      null,
      null,
    ]);
  });
});

const SS = `udp   UNCONN 0      0            127.0.0.53%lo:53         0.0.0.0:*    users:(("systemd-resolve",pid=61,fd=15))
udp   UNCONN 0      0      10.99.0.13%eth0:68         0.0.0.0:*    users:(("systemd-network",pid=50,fd=15))
udp   UNCONN 0      0               0.0.0.0:6081       0.0.0.0:*
tcp   LISTEN 0      128                   *:9100             *:*    users:(("node_exporter",pid=9,fd=3))
tcp   LISTEN 0      128                [::]:22            [::]:*    users:(("sshd",pid=9,fd=3),("systemd",pid=1,fd=3))
tcp   LISTEN 0      128        10.99.0.13:16514       0.0.0.0:*    users:(("libvirtd",pid=9,fd=3))
tcp   LISTEN 0      128           0.0.0.0:5900        0.0.0.0:*    users:(("qemu-system-x86",pid=9,fd=3))
tcp   LISTEN 0      128        10.99.0.13:8000        0.0.0.0:*    users:(("agent",pid=9,fd=3))
`;

describe('listeners', () => {
  it('are read from ss', () => {
    expect(parseListeners(SS).map(l => `${l.protocol} ${l.address} ${l.port} ${l.program}`)).toEqual([
      'udp 127.0.0.53 53 systemd-resolve',
      'udp 10.99.0.13 68 systemd-network',
      'udp 0.0.0.0 6081 the kernel',
      'tcp :: 9100 node_exporter',
      'tcp :: 22 sshd',
      'tcp 10.99.0.13 16514 libvirtd',
      'tcp 0.0.0.0 5900 qemu-system-x86',
      'tcp 10.99.0.13 8000 agent',
    ]);
  });

  it('on all addresses are wrong where the cloud does not need them so; on one address they are the operator’s', () => {
    const cloud = model();
    const cmp = cloud.nodes.find(n => n.name === 'cmp')!;
    expect(listenerFaults(cloud, cmp, parseListeners(SS))).toEqual([
      'cmp: node_exporter listens on :: port 9100/tcp, and the cloud needs no such port',
      'cmp: qemu-system-x86 listens on 0.0.0.0 port 5900/tcp, not on 10.99.0.13',
    ]);
  });

  it('of APIs may be on all addresses only where the API’s name stands for another one', () => {
    const api = parseListeners('tcp LISTEN 0 5 0.0.0.0:8774 0.0.0.0:* users:(("uwsgi",pid=1,fd=3))\n');
    const cloud = model();
    const ctl = cloud.nodes.find(n => n.name === 'ctl')!;
    expect(listenerFaults(cloud, ctl, api)).toHaveLength(1);
    expect(listenerFaults({ ...cloud, api: { host: 'cloud.test', address: '192.0.2.1' } }, ctl, api)).toEqual([]);
  });
});

describe('what a node is asked', () => {
  it('are the ports of its services', () => {
    const cloud = model();
    const ports = (name: string) =>
      tlsProbes(cloud, cloud.nodes.find(n => n.name === name)!)
        .map(p => p.port)
        .sort((a, b) => a - b);
    expect(ports('ctl')).toEqual([443, 3306, 5000, 5671, 6080, 6641, 6642, 8774, 8775, 8776, 8778, 9292, 9696]);
    expect(ports('cmp')).toEqual([16_514]);
    expect(ports('net')).toEqual([]);
  });

  it('has passwords that are no secrets in the environment of clients, not in their arguments', () => {
    const cloud = model();
    const request = evidenceRequest(cloud, cloud.nodes[0]!, { ca: '', needles: { salt: '', width: 24, digests: [] } });
    const logins = request.commands.filter(c => c.name.startsWith('login '));
    expect(logins.length).toBeGreaterThan(15);
    for (const l of logins) expect(l.env).toHaveProperty('MYSQL_PWD');
  });
});
