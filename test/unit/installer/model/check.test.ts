import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { Catalogue, ServiceContext } from '../../../../installer/model/catalogue.js';
import { checkCatalogue } from '../../../../installer/model/check.js';
import type { ReleaseData } from '../../../../installer/model/releases.js';
import { command, file, packages, unit } from '../../../../installer/model/resources.js';
import { catalogueOf, release, role, service } from './sample.js';

const part = (units: Record<string, string> = {}) => ({
  packages: [],
  preseed: [],
  units,
  mask: [],
  wsgi: null,
  options: {},
});
const releasesOf = (services: ReleaseData['services']) =>
  new Map([['debian-12-zed', { ...release, services, archives: [], bad_packages: [] }]]);

const dirs: string[] = [];
afterEach(() => {
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true });
});
const rolesDir = (files: Record<string, string> = {}): string => {
  const dir = mkdtempSync(join(tmpdir(), 'halligan-roles-'));
  dirs.push(dir);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), text);
  }
  return dir;
};
const check = (catalogue: Catalogue, services: ReleaseData['services'], files: Record<string, string> = {}) =>
  checkCatalogue(catalogue, releasesOf(services), rolesDir(files));
const conf = (ctx: ServiceContext) =>
  file({ path: '/etc/a.conf', content: ctx.template('etc/a.conf.hbs', { address: ctx.node.address }) });

describe('a catalogue', () => {
  it('that is whole has no fault', () => {
    const a = service('a', {
      build: ctx => [
        packages(ctx.release.packages),
        conf(ctx),
        unit({ unit: ctx.release.units['api']!, watches: ['/etc/a.conf'], provides: ['a:ready'] }),
      ],
    });
    const b = service('b', {
      needs: ['a'],
      build: () => [command({ name: 'x', title: 'X', apply: 'true', needs: ['a:ready', 'identity:catalog'] })],
    });
    expect(
      check(
        catalogueOf([a, b], [role('all', ['a', 'b'])]),
        { a: part({ api: 'a.service' }), b: part() },
        {
          'a/files/etc/a.conf.hbs': 'bind = {{ini address}}\n',
        },
      ),
    ).toEqual([]);
  });

  it('with wrong names is refused with all of them', () => {
    const wrong = catalogueOf(
      [
        service('a', {
          needs: ['x', 'a'],
          sentence: 'No full stop',
          endpoints: [{ type: 't', name: 'a', port: 1, path: '' }],
        }),
        service('b', {
          databases: [{ name: 'd', user: 'u' }],
          endpoints: [{ type: 't', name: 'b', port: 1, path: '' }],
        }),
        service('c', { databases: [{ name: 'd', user: 'v' }] }),
      ],
      [
        role('one', ['a', 'b', 'z'], {
          needs: [{ role: 'two', sentence: 'So it is.' }],
          limits: [{ sentence: 'None.' }],
        }),
        role('none', [], { conflicts: [{ role: 'none', sentence: 'Odd.' }] }),
      ],
    );
    expect(check(wrong, { a: part(), c: part(), q: part() })).toEqual([
      'roles/one/role.ts: there is no service "z"',
      'roles/one/role.ts: needs: there is no role "two"',
      'roles/one/role.ts: a limit limits nothing',
      'roles/none/role.ts: it has no service',
      'roles/none/role.ts: conflicts: it names itself',
      'roles/a/service.ts: "No full stop" is no sentence',
      'roles/a/service.ts: needs: there is no service "x"',
      'roles/a/service.ts: needs: it names itself',
      "roles/b/service.ts: the endpoint type t is a's already",
      "roles/b/service.ts: port 1 is a's already",
      'roles/c/service.ts: no role has it',
      "roles/c/service.ts: the database d is b's already",
      'roles/releases/debian-12-zed.yaml: services: b is missing',
      'roles/releases/debian-12-zed.yaml: services: there is no service q',
    ]);
  });

  it('with a template that cannot be rendered is refused with file and line', () => {
    const a = service('a');
    const faults = check(
      catalogueOf([a], [role('all', ['a'])]),
      { a: part() },
      {
        'a/files/etc/bare.conf.hbs': 'x = 1\ny = {{y}}\n',
        'a/files/etc/odd.hbs': 'x',
        'a/files/etc/plain.conf': 'x',
      },
    );
    expect(faults.sort()).toEqual([
      expect.stringContaining('roles/a/files/etc/bare.conf.hbs:2: "y" stands bare'),
      expect.stringContaining('roles/a/files/etc/odd.hbs: a template is named NAME.GRAMMAR.hbs'),
      'roles/a/files/etc/plain.conf: it is no template (.hbs)',
    ]);
  });

  const one = (build: (ctx: ServiceContext) => ReturnType<ReturnType<typeof service>['build']>, files = {}) =>
    check(catalogueOf([service('a', { build })], [role('all', ['a'])]), { a: part() }, files);

  it('that asks for a unit of which a release says nothing is refused with the file to mend', () => {
    expect(one(ctx => [unit({ unit: ctx.release.units['api'] ?? 'a.service' })])).toEqual([
      'roles/releases/debian-12-zed.yaml: services.a.units: api is missing, and the service asks for it',
    ]);
  });

  it('that gives a template too little is refused', () => {
    const faults = one(ctx => [file({ path: '/a', content: ctx.template('a.conf.hbs', {}) })], {
      'a/files/a.conf.hbs': '{{ini x}}',
    });
    expect(faults[0]).toMatch(
      /^roles\/a\/service\.ts: roles\/a\/files\/a\.conf\.hbs: .*missing.* \(sample: nodes of one role, debian-12-zed\)$/,
    );
  });

  it('that declares something twice is refused', () => {
    const same = command({ name: 'x', title: 'X', apply: 'true' });
    expect(one(() => [same, same])[0]).toContain('roles/a/service.ts: command:x is declared twice on node1');
  });

  it('that waits for what nobody provides, or for itself, is refused', () => {
    const waits = (needs: string[], provides: string[] = []) =>
      one(() => [command({ name: 'x', title: 'X', apply: 'true', needs, provides })])[0];
    expect(waits(['b:ready'])).toContain('node1/a/command:x needs b:ready, which nothing provides');
    const circle = (name: string, other: string) =>
      service(name, {
        build: () => [
          command({ name: 'x', title: 'X', apply: 'true', needs: [`${other}:ready`], provides: [`${name}:ready`] }),
        ],
      });
    expect(
      check(catalogueOf([circle('a', 'b'), circle('b', 'a')], [role('all', ['a', 'b'])]), { a: part(), b: part() })[0],
    ).toContain('these wait for each other');
  });

  it('that watches a file which nobody writes is refused', () => {
    expect(one(() => [unit({ unit: 'a.service', watches: ['/etc/a.conf'] })])[0]).toContain(
      'watches /etc/a.conf, which no service writes on this node',
    );
  });

  it('whose objects cannot be said is refused', () => {
    const a = service('a', {
      objects: () => {
        throw new Error('no such thing');
      },
    });
    expect(check(catalogueOf([a], [role('all', ['a'])]), { a: part() })[0]).toContain(
      'roles/a/service.ts: objects: no such thing',
    );
  });

  it('with roles that exclude each other is tried without the node that has all', () => {
    const conflicts = [{ role: 'y', sentence: 'Never both.' }];
    const roles = [
      role('x', ['a'], { conflicts }),
      role('y', ['b'], { limits: [{ most: 1, sentence: 'One is enough.' }] }),
    ];
    expect(check(catalogueOf([service('a'), service('b')], roles), { a: part(), b: part() })).toEqual([]);
  });
});
