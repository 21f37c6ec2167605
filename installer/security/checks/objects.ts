/** Swift: the guide has a chapter, but no list with ids. Pure. */
import { check, closed, content, inFolder, laidDown, on, output, said } from '../check.js';
import { parseIni } from '../ini.js';
import { isAny, parseListeners } from '../listeners.js';
import type { SecurityCheck } from '../types.js';

const source = 'OpenStack Security Guide, object storage';
const applies = laidDown('object-store', 'The site wants no object store (cloud.objects.enabled: false).');
const nodes = ['object-store', 'object-proxy'] as const;

export const objectChecks: readonly SecurityCheck[] = [
  check({
    id: 'Halligan-Swift-01',
    title: 'Swift does not run as root',
    source,
    applies,
    faults: e =>
      nodes
        .flatMap(n => on(e, n))
        .flatMap(s =>
          s.evidence.processes
            .filter(p => /\bswift-/.test(p.program) && p.user !== 'swift')
            .map(p => `${s.node.name}: ${p.program} runs as ${p.user}`),
        ),
  }),
  ...(
    [
      ['02', 'Configuration of Swift belongs to root and the group swift'],
      ['03', 'Only root and the group swift read its files'],
      ['04', 'Only root and the group swift open its folder'],
    ] as const
  ).map(([number, title]) =>
    check({
      id: `Halligan-Swift-${number}`,
      title,
      source,
      applies,
      faults: e =>
        nodes
          .flatMap(n => on(e, n))
          .flatMap(s => {
            const { self, files } = inFolder(s, '/etc/swift');
            const all = number === '04' ? (self ? [self] : []) : files;
            if (all.length === 0) return [`${s.node.name}: there is no /etc/swift`];
            const right = (p: (typeof all)[number]) =>
              number === '02'
                ? ['root', 'swift'].includes(p.owner) && p.group === 'swift'
                : closed(p, number === '03' ? 0o640 : 0o750);
            return all.filter(p => !right(p)).map(p => `${s.node.name}: ${p.path} is ${said(p)}`);
          }),
    }),
  ),
  check({
    id: 'Halligan-Swift-05',
    title: 'What keeps objects listens on the storage network only: it asks nobody who he is',
    source,
    applies,
    faults: e =>
      on(e, 'object-store').flatMap(s =>
        parseListeners(output(s, 'listeners'))
          .filter(l => [6200, 6201, 6202, 873].includes(l.port) && l.address !== s.node.storageAddress)
          .map(l => `${s.node.name}: ${l.program} listens on ${l.address} port ${l.port}`),
      ),
  }),
  check({
    id: 'Halligan-Swift-06',
    title: 'Swift’s proxy answers over TLS only, and on its own address',
    source,
    applies,
    faults: e =>
      on(e, 'object-proxy').flatMap(s => {
        const tls = s.evidence.tls.find(t => t.port === 8080);
        return [
          ...(tls?.ok ? [] : [`${s.node.name}: no trusted TLS (${tls?.error ?? 'not tried'})`]),
          ...(/^HTTP\/\S+ [123]/.test(tls?.clear ?? '') ? [`${s.node.name}: it answers plain HTTP`] : []),
          ...parseListeners(output(s, 'listeners'))
            .filter(l => l.port === 8080 && isAny(l.address) && e.model.api.address === s.node.address)
            .map(l => `${s.node.name}: it listens on ${l.address}`),
        ];
      }),
  }),
  check({
    id: 'Halligan-Swift-07',
    title: 'Swift asks Keystone who calls, and has no accounts of its own',
    source,
    applies,
    faults: e =>
      on(e, 'object-proxy').flatMap(s => {
        const pipeline = parseIni(content(s, '/etc/swift/proxy-server.conf'))['pipeline:main']?.['pipeline'] ?? '';
        return [
          ...(/\btempauth\b/.test(pipeline) ? [`${s.node.name}: tempauth is in the pipeline`] : []),
          ...(/\bkeystoneauth\b/.test(pipeline) ? [] : [`${s.node.name}: keystoneauth is not in the pipeline`]),
        ];
      }),
  }),
  check({
    id: 'Halligan-Swift-08',
    title: 'The salt of Swift’s hashes is long, and the same on all nodes',
    source,
    applies,
    faults: e => {
      const salts = nodes
        .flatMap(n => on(e, n))
        .map(s => parseIni(content(s, '/etc/swift/swift.conf'))['swift-hash'] ?? {});
      const one = (key: string) => new Set(salts.map(s => s[key] ?? ''));
      return ['swift_hash_path_prefix', 'swift_hash_path_suffix'].flatMap(key => [
        ...(one(key).size > 1 ? [`${key} is not the same everywhere`] : []),
        ...([...one(key)].some(v => v.length < 32) ? [`${key} is shorter than 32 characters`] : []),
      ]);
    },
  }),
];
