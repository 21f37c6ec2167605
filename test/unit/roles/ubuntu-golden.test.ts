/**
 * The plan of one four-node cloud for releases that were never laid down here. What a reviewer sees in the goldens: the
 * whole plan, and the text of every file that is another than for Debian 12.
 */
import { describe, expect, it } from 'vitest';
import type { DesiredState } from '../../../installer/engine/desired.js';
import type { CloudModel } from '../../../installer/model/cloud.js';
import { loadRelease, releaseNames } from '../../../installer/model/releases.js';
import type { Resource } from '../../../installer/model/resources.js';
import { catalogue } from '../../../roles/catalogue.js';
import { desired, fourNodes, model, oneNode } from './fixture.js';
import { shellFaults, unparsed } from './grammars.js';

const objects = { enabled: true, replicas: 1, devices: [{ path: '/dev/sdc', fileSize: null }] };

/** Controller, network, compute, and one node for volumes and objects. */
function cloud(release: string): CloudModel {
  const { distribution } = loadRelease(release)!;
  const [id = '', version = ''] = distribution.split('-');
  const nodes = fourNodes({ os: { id, version } }).map(n =>
    n.name === 'vol' ? { ...n, roles: ['volume', 'storage'] } : n,
  );
  return model(nodes, { release, objects });
}

const mode = (m: number) => `0${m.toString(8)}`;
function line(r: Resource): string {
  switch (r.kind) {
    case 'packages':
      return `packages ${r.names.join(' ')}${r.preseed.map(p => `\n  preseed ${p}`).join('')}${r.archives
        .map(
          a => `\n  archive ${a.uri} ${a.suites.join(' ')} ${a.components.join(' ')} (keyring: ${a.keyring.package})`,
        )
        .join('')}`;
    case 'file':
      return `file ${r.path} ${r.owner}:${r.group} ${mode(r.mode)}`;
    case 'directory':
      return `directory ${r.path} ${r.owner}:${r.group} ${mode(r.mode)}`;
    case 'unit':
      return `unit ${r.unit} ${r.state}`;
    case 'command':
      return `command ${r.title}`;
  }
}

function planText(state: DesiredState): string {
  const lines: string[] = [];
  let section = '';
  for (const p of state.placed) {
    if (`${p.node} ${p.service}` !== section) {
      section = `${p.node} ${p.service}`;
      lines.push('', `# ${section}`);
    }
    const { needs, provides } = p.resource;
    lines.push(
      line(p.resource) +
        (needs.length > 0 ? ` ← ${needs.join(' ')}` : '') +
        (provides.length > 0 ? ` → ${provides.join(' ')}` : ''),
    );
  }
  return `${lines.join('\n').trim()}\n`;
}

const files = (state: DesiredState) =>
  state.placed.flatMap(p =>
    p.resource.kind === 'file' ? [{ node: p.node, resource: p.resource, key: `${p.node}:${p.resource.path}` }] : [],
  );

describe.each(['ubuntu-24.04-caracal', 'ubuntu-24.04-uca-2025.1', 'ubuntu-26.04-2026.1'])(
  'the plan for %s',
  release => {
    const state = desired(cloud(release));

    it('is as it was when somebody last looked at it', async () => {
      await expect(planText(state)).toMatchFileSnapshot(`golden/${release}.plan.golden`);
    });

    it('writes the files of Debian 12, but for these', async () => {
      const debian = new Map(files(desired(cloud('debian-12-zed'))).map(f => [f.key, f.resource.content]));
      const text = files(state)
        .filter(f => debian.get(f.key) !== f.resource.content)
        .map(f => `==== ${f.key}\n${f.resource.content}`)
        .join('\n');
      await expect(text).toMatchFileSnapshot(`golden/${release}.files.golden`);
    });

    it('has files that parsers of their grammars read', () => {
      expect(
        unparsed(
          files(state).map(f => ({ path: f.resource.path, text: f.resource.content, grammar: f.resource.grammar })),
        ),
      ).toEqual([]);
    });

    it('has commands that a shell reads', () => {
      const scripts = state.placed.flatMap(p => {
        const r = p.resource;
        const all = r.kind === 'command' ? [r.check, r.apply] : r.kind === 'unit' ? [r.ready] : [];
        return all.flatMap((text, i) => (text === null ? [] : [{ path: `${p.key}#${i}`, text }]));
      });
      expect(scripts.length).toBeGreaterThan(50);
      expect(shellFaults(scripts)).toEqual([]);
    });
  },
);

/** Units that are systemd's own, in every release. */
const OF_SYSTEMD = ['systemd-sysctl.service'];

describe.each(releaseNames())('names in the plan for %s', release => {
  const data = loadRelease(release)!;

  it('of packages and units are those of the data file', () => {
    const packages = new Set([
      ...data.archives.map(a => a.keyring.package),
      ...Object.values(data.services).flatMap(s => [
        ...s.packages,
        ...Object.entries(s.options).flatMap(([k, v]) => (/^packages_|_package$/.test(k) ? String(v).split(' ') : [])),
      ]),
    ]);
    const units = new Set([
      ...Object.values(data.services).flatMap(s => [...Object.values(s.units), ...s.mask]),
      ...OF_SYSTEMD,
    ]);
    const unknown = desired(cloud(release)).placed.flatMap(({ key, resource: r }) => {
      if (r.kind === 'packages') return r.names.filter(n => !packages.has(n)).map(n => `${key}: package ${n}`);
      if (r.kind !== 'unit') return [];
      // `ceph-mon@vol.service` is an instance of `ceph-mon@.service`.
      return units.has(r.unit) || units.has(r.unit.replace(/@.*\./, '@.')) ? [] : [`${key}: unit ${r.unit}`];
    });
    expect(unknown).toEqual([]);
  });

  it('are all asked for: nothing in the data file is idle', () => {
    const asked = new Set<string>();
    const watched = (service: string, kind: string, values: object) =>
      new Proxy(values, {
        get(target, key) {
          asked.add(`${service}.${kind}.${String(key)}`);
          return Reflect.get(target, key) as unknown;
        },
      });
    const [id = '', version = ''] = data.distribution.split('-');
    const os = { id, version };
    const clouds = [
      cloud(release),
      model(oneNode({ os }), {
        release,
        dashboard: false,
        volumes: { backend: 'lvm', devices: [{ path: '/dev/sdb', fileSize: null }] },
      }),
    ];
    for (const c of clouds) {
      const services = Object.fromEntries(
        Object.entries(c.release.services).map(([name, s]) => [
          name,
          { ...s, units: watched(name, 'units', s.units), options: watched(name, 'options', s.options) },
        ]),
      );
      desired({ ...c, release: { ...c.release, services } } as CloudModel, catalogue);
    }
    const given = Object.entries(data.services).flatMap(([name, s]) =>
      (['units', 'options'] as const).flatMap(kind => Object.keys(s[kind]).map(key => `${name}.${kind}.${key}`)),
    );
    expect(given.filter(g => !asked.has(g))).toEqual([]);
  });
});
