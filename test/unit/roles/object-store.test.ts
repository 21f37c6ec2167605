import { describe, expect, it } from 'vitest';
import type { CloudModel } from '../../../installer/model/cloud.js';
import { disksOf, objectsRefusal } from '../../../roles/object-store/rings.js';
import { desired, filesOf, fourNodes, model, nodeInput, settings } from './fixture.js';

const objects = { enabled: true, replicas: 2, devices: [{ path: '/dev/sdb', fileSize: null }] };
const nodes = (count: number) => [
  ...fourNodes(),
  ...Array.from({ length: count }, (_, i) => nodeInput(`sto${i + 1}`, `10.99.0.${31 + i}`, ['storage'])),
];
const cloud = (count = 2) => model(nodes(count), { objects });
const rings = (c: CloudModel) =>
  desired(c).placed.flatMap(p =>
    p.resource.kind === 'command' && p.resource.id === 'command:rings' ? [p.resource] : [],
  );
interface Input {
  readonly steps: CloudModel['memory']['rings'];
  readonly moved: readonly { readonly node: string; readonly address: string }[];
}
const inputOf = (c: CloudModel) => JSON.parse(/^\{.*\}$/m.exec(rings(c)[0]!.apply)![0]) as Input;
const later = (
  before: CloudModel,
  with_: ReturnType<typeof nodes>,
  changed: Partial<ReturnType<typeof settings>> = {},
) => model(with_, { objects, ...changed }, undefined, before.memory);

describe('the object store', () => {
  it('builds the same rings on every node', () => {
    const all = rings(cloud(3));
    expect(all).toHaveLength(4);
    expect(new Set(all.map(r => r.apply)).size).toBe(1);
  });

  it('begins with as many disks as there are copies', () => {
    expect(inputOf(cloud(3)).steps).toMatchObject([
      {
        replicas: 2,
        add: [
          { node: 'sto1', zone: 1 },
          { node: 'sto2', zone: 2 },
        ],
        remove: [],
      },
      { replicas: 2, add: [{ node: 'sto3', zone: 3 }], remove: [] },
    ]);
  });

  it('only appends: a node that was discovered before the others comes last, with a zone of its own', () => {
    const before = cloud(2);
    const early = nodeInput('early', '10.99.0.30', ['storage']);
    const { steps } = inputOf(later(before, [early, ...nodes(2)]));
    expect(steps.slice(0, -1)).toEqual(inputOf(before).steps);
    expect(steps.at(-1)).toMatchObject({ add: [{ node: 'early', zone: 3 }], remove: [] });
    expect(inputOf(later(before, nodes(2)))).toEqual(inputOf(before));
  });

  it('takes a node out by a further step, and gives it its zone when it comes back', () => {
    const three = cloud(3);
    const without = later(
      three,
      nodes(3).filter(n => n.name !== 'sto1'),
    );
    expect(inputOf(without).steps).toEqual([
      ...inputOf(three).steps,
      { replicas: 2, add: [], remove: [{ node: 'sto1', disk: 'sdb' }] },
    ]);
    expect(inputOf(later(without, nodes(3))).steps.at(-1)).toMatchObject({ add: [{ node: 'sto1', zone: 1 }] });
  });

  it('takes nothing from a node that is only away', () => {
    const three = cloud(3);
    const rest = nodes(3).filter(n => n.name !== 'sto1');
    const without = model(rest, { objects }, undefined, three.memory, ['sto1']);
    expect(inputOf(without)).toEqual(inputOf(three));
    expect(inputOf(later(without, nodes(3)))).toEqual(inputOf(three));
  });

  it('moves nothing when an address changes', () => {
    const moved = later(cloud(2), [...fourNodes(), nodeInput('sto1', '10.99.0.99', ['storage']), nodes(2).at(-1)!]);
    expect(inputOf(moved).steps).toEqual(inputOf(cloud(2)).steps);
    expect(inputOf(moved).moved).toEqual([{ node: 'sto1', disk: 'sdb', address: '10.99.0.99' }]);
  });

  it('listens on the storage address, and takes copies from its peers only', async () => {
    const files = filesOf(desired(cloud()), 'sto1');
    await expect(files.get('/etc/swift/object-server.conf')!.content).toMatchFileSnapshot(
      'golden/object-server.conf.golden',
    );
    await expect(files.get('/etc/rsyncd.conf')!.content).toMatchFileSnapshot('golden/rsyncd.conf.golden');
  });

  it('asks before it takes disks, and knows its own by label', () => {
    const disks = desired(cloud()).placed.find(p => p.key === 'sto1/object-store/command:disks')!.resource;
    expect(disks).toMatchObject({ destroys: 'Everything on /dev/sdb of sto1.' });
    const [sto1, sto2] = cloud().nodes.filter(n => n.name.startsWith('sto'));
    const labels = [sto1!, sto2!].map(n => disksOf(cloud(), n)[0]!.label);
    expect(new Set(labels).size).toBe(2);
    for (const label of labels) expect(label.length).toBeLessThanOrEqual(12);
  });

  it('serves Swift’s API and S3 over TLS, with tokens of Keystone', async () => {
    const { content } = filesOf(desired(cloud()), 'ctl').get('/etc/swift/proxy-server.conf')!;
    await expect(content).toMatchFileSnapshot('golden/proxy-server.conf.golden');
    expect(content).toMatch(/authtoken s3api s3token keystoneauth/);
  });

  it('refuses more copies than disks', () => {
    expect(objectsRefusal(cloud())).toBeNull();
    expect(objectsRefusal({ ...cloud(), settings: settings({ objects: { ...objects, replicas: 3 } }) })).toBe(
      'cloud.objects.replicas is 3, but the storage nodes have 2 disks for objects together: each copy needs one of its own.',
    );
    expect(objectsRefusal({ ...cloud(), settings: settings({ objects: { ...objects, devices: [] } }) })).toMatch(
      /names no disk/,
    );
  });
});
