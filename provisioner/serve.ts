/**
 * `halligan serve`: opens the database and every socket, wires the parts, and closes them in reverse. What we own must
 * start or the reason is said in one sentence; what we do not own (BMCs, nodes) is tried for as long as it takes.
 */
import { createReadStream, existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { adoptHost } from './adopt/adopt.js';
import type { Lease } from './api/services.js';
import { startApi } from './api/start.js';
import { readLoaders } from './boot/loaders.js';
import { startBootPlane } from './boot/plane.js';
import { createConsoles } from './console/consoles.js';
import { readPages } from './core/api/pages.js';
import { backup, DATABASE_FILE } from './core/backup.js';
import type { Clock } from './core/clock.js';
import type { CloudHalf, HandedNode, RunningCloud } from './core/cloud-host.js';
import { createEventFeed } from './core/events.js';
import { createExecutor } from './core/executor/executor.js';
import { createJournal } from './core/journal.js';
import { loadKeys } from './core/keys.js';
import { lockDatabase } from './core/lock.js';
import type { Log } from './core/log.js';
import { serverAddressFor } from './core/net/addresses.js';
import { fail, type Problem } from './core/problem.js';
import { createSecretStore } from './core/secrets.js';
import { openStore } from './core/store/store.js';
import { createBootTrace } from './core/trace.js';
import { startDhcp } from './dhcp/server.js';
import { startDns } from './dns/server.js';
import { createImageStore } from './image/store.js';
import { createJobMaker } from './install/jobs.js';
import { normaliseInventory } from './inventory/normalise.js';
import { networkOf } from './node/addresses.js';
import type { StateContext } from './node/context.js';
import { createDirectory } from './node/directory.js';
import { type NodeState, stateLabel, transition } from './node/lifecycle.js';
import { SPINE_HANDLERS, startStateLoop } from './node/loop.js';
import { createMachines } from './node/machines.js';
import { createNodeService } from './node/node-service.js';
import { createOracle } from './node/oracle.js';
import { endJobs, osTarget } from './node/ram.js';
import { type NodeRepository, openNodeRepository } from './node/repository.js';
import { syncSite } from './node/site-sync.js';
import { createTokens } from './node/tokens.js';
import type { Node } from './node/types.js';
import { startPackages } from './packages/start.js';
import { createPower } from './power/power.js';
import { startAutoClaim } from './profile/auto-claim.js';
import { cloudSettings } from './site/cloud.js';
import type { LoadedSite } from './site/load.js';
import type { Site } from './site/schema.js';
import { sayPlace } from './site/source.js';
import { loaderRoute } from './tftp/routes.js';
import { startTftp } from './tftp/server.js';

/** What `npm run build` makes of ui/, beside the compiled program. */
const WEB = join(import.meta.dirname, '../web');
const EVENTS_KEPT = 200_000;
const TRIM_MS = 10 * 60_000;
/** A node that does not answer for so long while it is at work may have lost its power. */
const RECONNECT_MS = 60_000;
/** `applying` belongs to the installer half, which brings its own deadline. */
const APPLYING_SECONDS = 7200;

export interface ServeOptions {
  readonly loaded: LoadedSite;
  readonly version: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cloud: CloudHalf;
}

export interface Server {
  /** What listens where, a line each, for the start of the log and the terminal. */
  readonly listening: readonly string[];
  close(): Promise<void>;
}

export const imagesDirOf = (site: Site): string => join(site.data_dir, 'images');
export const databaseOf = (site: Site): string => join(site.data_dir, DATABASE_FILE);
export const socketOf = (site: Site): string => site.socket ?? join(site.data_dir, 'halligan.sock');

const deadlineSeconds =
  (site: Site) =>
  (state: NodeState): number => {
    const { deadlines } = site;
    switch (state) {
      case 'inspecting':
        return deadlines.inspecting_seconds;
      case 'installing':
        return deadlines.installing_seconds;
      case 'releasing':
        return deadlines.releasing_seconds;
      case 'rescuing':
        return deadlines.rescuing_seconds;
      default:
        return APPLYING_SECONDS;
    }
  };

/** @throws ProblemError port-in-use, capability-missing, interface-missing, database-busy, dependency-missing, … */
export async function startServer({
  loaded,
  version,
  clock,
  log,
  env,
  cloud: cloudHalf,
}: ServeOptions): Promise<Server> {
  const { site } = loaded;
  const closers: { name: string; close: () => unknown }[] = [];
  const close = async () => {
    for (const { name, close } of closers.splice(0).reverse())
      try {
        await close();
      } catch (error) {
        log.error({ part: name, error: String(error) }, 'closing failed');
      }
  };
  const opened = <T>(name: string, value: T, closeIt: (value: T) => unknown): T => {
    closers.push({ name, close: () => closeIt(value) });
    return value;
  };

  try {
    opened('lock', lockDatabase(databaseOf(site)), l => l.release());
    const store = opened('store', await openStore(databaseOf(site)), s => s.close());
    const keys = loadKeys(site.data_dir, env['CREDENTIALS_DIRECTORY']);
    const secrets = createSecretStore(store.db, keys.masterKey, clock, env);
    const events = createEventFeed(store.db, clock);
    const trace = opened('trace', createBootTrace(store.db, clock), t => t.close());
    const journal = createJournal(store, clock);
    const tokens = await createTokens(store.db, clock, keys.masterKey);
    const images = createImageStore(imagesDirOf(site));
    const loaders = await readLoaders();

    const networks = await Promise.all(
      site.networks.map(async network => ({ network, address: await serverAddressFor(network) })),
    );
    const ownAddresses = [...new Set(networks.map(n => n.address))];
    const bootUrl = (nodeAddress: string): string => {
      const network = networkOf(site.networks, nodeAddress);
      const own = networks.find(n => n.network.name === network?.name)?.address ?? ownAddresses[0];
      return `http://${own}:${site.boot.http_port}`;
    };

    const nodes = await openNodeRepository(store, events, clock, deadlineSeconds(site));
    await syncSite(site, nodes);
    const directory = createDirectory(nodes, site);
    const executor = opened(
      'executor',
      createExecutor({
        privateKey: keys.privateKey,
        maxConnections: site.limits.ssh_sessions,
        // Not longer: the states ask the BMC then, and take up what goes on all the same.
        reconnectMs: RECONNECT_MS,
        clock,
        log,
      }),
      e => e.close(),
    );
    const power = opened(
      'power',
      createPower({
        async lookup(nodeId) {
          const node = nodes.byId(nodeId);
          if (!node) return null;
          const { bmc } = node.spec;
          return {
            bmc,
            password: bmc?.password === undefined ? null : await secrets.resolve(bmc.password),
            firmware: node.status.platform,
            name: node.name,
            mac: node.macs[0] ?? null,
          };
        },
        clock,
        log,
        events,
        trace,
      }),
      p => p.close(),
    );
    const jobs = createJobMaker({ site, images, serverKey: executor.publicKey });
    const context: StateContext = {
      site,
      nodes,
      tokens,
      journal,
      executor,
      power,
      jobs,
      events,
      trace,
      clock,
      log,
      bootUrl,
      waiting: async (nodeId, sentence) => {
        await nodes.update(nodeId, n => (n.waitingFor === sentence ? null : { waitingFor: sentence }));
      },
    };
    const loop = opened('state loop', startStateLoop(context, SPINE_HANDLERS), l => l.close());
    const service = createNodeService({
      site,
      siteLine: field => {
        const path = field
          .split(/[.[\]]+/)
          .filter(Boolean)
          .map(p => (/^\d+$/.test(p) ? Number(p) : p));
        return sayPlace(loaded.placeOf(path));
      },
      nodes,
      journal,
      events,
      trace,
      power,
      loop,
      clock,
      jobs,
      stopJobs: node => endJobs(node, context),
      adopt: request => adoptHost({ ...request, executor, clock, log }),
    });
    let dhcp: Awaited<ReturnType<typeof startDhcp>> | undefined;
    const macAt = (address: string) => dhcp?.leases().find(l => l.address === address)?.mac;
    const oracle = createOracle({
      site,
      nodes,
      tokens,
      events,
      trace,
      clock,
      normaliseInventory,
      ramImage: () => ramImage(site, images),
      ownAddresses: () => ownAddresses,
      poke: nodeId => loop.poke(nodeId),
      macAt,
      halt: async nodeId => void (await loop.stop(nodeId, async () => {})),
    });
    const consoles = opened(
      'consoles',
      createConsoles({
        dir: join(site.data_dir, 'consoles'),
        lookup: async nodeId => {
          const node = nodes.byId(nodeId);
          if (!node) return null;
          // A virtual lab puts the sockets of its machines here, whatever their BMC can do.
          const socket = node.macs
            .map(m => join(site.data_dir, 'consoles', `${m.replaceAll(':', '-')}.sock`))
            .find(existsSync);
          if (socket) return { kind: 'socket', path: socket };
          const { bmc } = node.spec;
          if (bmc?.driver !== 'ipmi' || bmc.address === undefined) return null;
          return {
            kind: 'sol',
            bmc,
            password: bmc.password === undefined ? null : await secrets.resolve(bmc.password),
          };
        },
        log,
        check: nodeId => power.status(nodeId),
      }),
      c => c.close(),
    );

    const settings = cloudSettings(site);
    const archives = settings === null ? null : cloudHalf.archivesOf(settings.release);
    const packages =
      settings?.packages == null || archives === null
        ? null
        : opened(
            'packages',
            await startPackages({
              from: settings.packages,
              release: archives,
              uplink: site.packages.uplink ?? null,
              dir: join(site.data_dir, 'packages'),
              maxBytes: site.limits.package_cache_gib * 2 ** 30,
              baseUrl: address => (address === null ? bootUrl(ownAddresses[0]!) : bootUrl(address)),
              clock,
              log,
            }),
            p => p.close(),
          );
    const rolesSetIn = (node: Node): string | null => {
      const index = node.source === 'site' ? site.nodes.findIndex(n => n.name === node.name) : -1;
      return (site.nodes[index]?.roles.length ?? 0) > 0 ? sayPlace(loaded.placeOf(['nodes', index, 'roles'])) : null;
    };
    const cloud: RunningCloud | null =
      settings === null
        ? null
        : opened(
            'cloud',
            cloudHalf.start({
              siteName: site.name,
              domain: site.domain,
              settings,
              dataDir: site.data_dir,
              nodes: () =>
                nodes
                  .all()
                  .filter(n => n.spec.roles.length > 0)
                  .map(n => handOver(n, rolesSetIn(n))),
              node: name => {
                const node = nodes.all().find(n => n.name === name);
                return node ? handOver(node, rolesSetIn(node)) : null;
              },
              machines: createMachines({ site, nodes, service, jobs }),
              setRoles: async (name, roles) => {
                await service.update(name, { roles: [...roles] });
              },
              onNode: async (name, state, problem) => {
                const node = nodes.all().find(n => n.name === name);
                if (node) await moveNode(nodes, node, state, problem);
              },
              executor,
              journal,
              events,
              secrets,
              clock,
              log,
              imageFile: (image, file) => images.path(image, file),
              packageSources: name =>
                packages?.sources(nodes.all().find(n => n.name === name)?.status.os?.address ?? null) ?? null,
            }),
            c => c.close(),
          );

    // The API first: if it cannot start, no node was answered yet.
    const parts: Record<string, { ok: boolean; message: string }> = {};
    const listening: string[] = [];
    const starts = (name: string, message: string) => {
      parts[name] = { ok: true, message };
      listening.push(`${name}: ${message}`);
    };
    const socketPath = socketOf(site);
    const pages = readPages(WEB);
    if (pages === null)
      log.warn({ dir: WEB }, 'the UI was not built: run `npm run build`; the API and the command line work without it');
    const leases = async (): Promise<Lease[]> =>
      (await store.db.selectFrom('lease').selectAll().orderBy('ip').execute()).map(l => ({
        ip: l.ip,
        network: l.network,
        mac: l.mac,
        hostname: l.hostname,
        state: l.state,
        expiresMs: l.expires_ms,
      }));
    opened(
      'api',
      await startApi({
        listen: site.api.listen,
        port: site.api.port,
        socketPath,
        version,
        pages,
        clock,
        log,
        nodes: service,
        events,
        journal,
        images,
        consoles,
        site: loaded,
        leases,
        health: async () => parts,
        backup: () => backupStream(site, clock),
        cloud,
        catalogue: cloudHalf.catalogue,
        secrets: { list: () => secrets.names(), set: (n, v) => secrets.put(n, v), remove: n => secrets.remove(n) },
      }),
      a => a.close(),
    );
    starts('api', `${socketPath}${site.api.port === 0 ? '' : ` and http://${site.api.listen}:${site.api.port}`}`);
    opened(
      'boot',
      await startBootPlane({
        addresses: ownAddresses,
        port: site.boot.http_port,
        images,
        loaders,
        oracle,
        clock,
        log,
        trace,
        console: site.boot.console,
        ...(packages?.route ? { packages: packages.route } : {}),
      }),
      b => b.close(),
    );
    starts('boot', ownAddresses.map(a => `http://${a}:${site.boot.http_port}`).join(', '));
    for (const address of ownAddresses)
      opened(
        'tftp',
        await startTftp({
          address,
          port: site.boot.tftp_port,
          routes: [loaderRoute(loaders)],
          clock,
          log,
          trace,
          macOf: macAt,
        }),
        t => t.close(),
      );
    starts('tftp', ownAddresses.map(a => `${a}:${site.boot.tftp_port}`).join(', '));
    dhcp = opened(
      'dhcp',
      await startDhcp({ site, directory, db: store.db, clock, log, trace, events, ownDns: true }),
      d => d.close(),
    );
    starts('dhcp', site.networks.map(n => `${n.name} ${n.cidr}`).join(', '));
    opened(
      'dns',
      await startDns({ site, networks: dhcp.networks, directory, leases: () => dhcp?.leases() ?? [], clock, log }),
      d => d.close(),
    );
    starts('dns', ownAddresses.map(a => `${a}:53`).join(', '));

    opened('claims by profile', startAutoClaim({ site, nodes, events, log }), a => a.close());
    await cloud?.resume();
    const trimming = setInterval(() => {
      events.trim(EVENTS_KEPT).catch(error => log.error({ error: String(error) }, 'trimming the event feed failed'));
    }, TRIM_MS);
    closers.push({ name: 'trimming', close: () => clearInterval(trimming) });

    await events.emit({
      type: 'server.start',
      message: `Halligan ${version} serves the site ${site.name} (epoch ${store.epoch}).`,
      data: { epoch: store.epoch, listening },
    });
    closers.push({
      name: 'farewell',
      close: () => events.emit({ type: 'server.stop', message: 'The server stops.' }),
    });
    return { listening, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A node with roles as the cloud half takes it. */
function handOver(node: Node, rolesSetIn: string | null): HandedNode {
  const { os } = node.status;
  const installed = (['installed', 'applying', 'ready', 'applying-failed'] as NodeState[]).includes(node.state);
  return {
    id: node.id,
    name: node.name,
    roles: node.spec.roles,
    target: os && installed && node.maintenance === null ? osTarget(os) : null,
    unreachableBecause:
      node.maintenance !== null
        ? `it is in maintenance (${node.maintenance})`
        : installed && os
          ? null
          : `it is ${stateLabel(node.state).toLowerCase()}, not installed`,
    rolesSetIn,
  };
}

/** Where the lay-down of a node leads it; a node that is elsewhere by now is left there. */
async function moveNode(
  nodes: NodeRepository,
  node: Node,
  state: 'applying' | 'ready' | 'failed',
  problem: Problem | null,
): Promise<void> {
  if (state === 'applying') {
    if (transition(node.state, 'apply').ok) await nodes.transition(node.id, 'apply', 'Its roles are laid down.');
  } else if (node.state === 'applying') {
    if (state === 'ready') await nodes.transition(node.id, 'apply-done', 'Its roles are in place.');
    else if (problem) await nodes.failWorking(node.id, problem);
  } else if (state === 'ready' && (node.state === 'installed' || node.state === 'applying-failed')) {
    // Nothing was to be done on it: it is what it should be.
    await nodes.transition(node.id, 'apply', 'Its roles are looked at.');
    await nodes.transition(node.id, 'apply-done', 'Its roles are in place.');
  }
}

/** The site's RAM environment, or the one that is there: the full kernel before the one for virtual machines. */
async function ramImage(site: Site, images: ReturnType<typeof createImageStore>): Promise<string> {
  const names = (await images.list()).filter(i => i.kind === 'ram').map(i => i.name);
  const wanted = site.boot.ram_image;
  if (wanted !== undefined && names.includes(wanted)) return wanted;
  const found = wanted === undefined ? (['ram', 'ram-cloud'].find(n => names.includes(n)) ?? names[0]) : undefined;
  return (
    found ??
    fail('image-missing', `There is no RAM environment${wanted ? ` called ${wanted}` : ''} in ${imagesDirOf(site)}.`, {
      hint: 'Build one: halligan image build ram (or ram-cloud for virtual machines).',
    })
  );
}

/** A backup as a stream; the file behind it is gone when the stream ends. */
async function backupStream(site: Site, clock: Clock): Promise<Readable> {
  const dir = await mkdtemp(join(site.data_dir, '.backup-'));
  const clean = () => rm(dir, { recursive: true, force: true });
  try {
    const to = join(dir, 'backup.tar');
    await backup({ dataDir: site.data_dir, to, clock });
    const stream = createReadStream(to);
    stream.once('close', () => void clean());
    return stream;
  } catch (error) {
    await clean();
    throw error;
  }
}
