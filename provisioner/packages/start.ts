/** Packages for nodes as one thing, for the server. */
import type { Clock } from '../core/clock.js';
import type { ReleaseArchives } from '../core/cloud-host.js';
import { loadDistribution } from '../core/distributions/load.js';
import type { Log } from '../core/log.js';
import { fail, ProblemError } from '../core/problem.js';
import { aptProxy, machineSources } from '../image/mmdebstrap.js';
import { type Archive, archivesOf, sourcesText } from './archives.js';
import { openPackageCache } from './cache.js';
import { createPackageRoute } from './route.js';
import type { PackageRoute } from './types.js';
import { openUpstream, type Way } from './upstream.js';

export interface PackagesOptions {
  /** `proxy`: through us; else the address of a mirror. */
  readonly from: string;
  readonly release: ReleaseArchives;
  /** `unix:/path` of who fetches for us. */
  readonly uplink: string | null;
  readonly dir: string;
  readonly maxBytes: number;
  /** Our boot listener as a node sees it. */
  readonly baseUrl: (nodeAddress: string | null) => string;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Packages {
  /** Null when nodes go to a mirror. */
  readonly route: PackageRoute | null;
  /** Lines of sources.list(5) for the node at this address. */
  sources(nodeAddress: string | null): string;
  close(): Promise<void>;
}

/** @throws ProblemError package-source-failed when it is not known where a suite comes from */
export async function startPackages(options: PackagesOptions): Promise<Packages> {
  const { from, release, uplink, clock, log } = options;
  const distribution = loadDistribution(release.distribution);
  const shared = { distribution, extra: release.archives, machine: await machineSources() };
  if (from !== 'proxy') {
    const text = sourcesText(
      known(() => archivesOf({ ...shared, mirror: from.replace(/\/+$/, '') })),
      null,
    );
    return { route: null, sources: () => text, close: async () => {} };
  }
  const archives = known(() => archivesOf(shared));
  const proxy = uplink === null ? await aptProxy() : null;
  const way: Way =
    uplink !== null
      ? { kind: 'unix', path: uplink.replace(/^unix:/, '') }
      : proxy !== null
        ? { kind: 'proxy', url: proxy }
        : { kind: 'direct' };
  const upstream = openUpstream(way);
  const cache = await openPackageCache({ dir: options.dir, maxBytes: options.maxBytes, upstream, clock, log });
  return {
    route: createPackageRoute({ archives, cache, clock, log }),
    sources: address => sourcesText(archives, options.baseUrl(address)),
    async close() {
      await cache.close();
      await upstream.close();
    },
  };
}

function known(archives: () => Archive[]): Archive[] {
  try {
    return archives();
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    return fail('package-source-failed', error.problem.message, {
      hint: 'Put the archives of the cloud’s distribution into the apt sources of this machine, or name a mirror in cloud.packages.',
    });
  }
}
