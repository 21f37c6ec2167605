/** Starts the operators' side: `/api/v1` on loopback and on a root-only Unix socket. */

import type { Pages } from '../core/api/pages.js';
import type { Api } from '../core/api/server.js';
import { createApiServer } from '../core/api/server.js';
import { type Clock, systemClock } from '../core/clock.js';
import { type Log, silentLog } from '../core/log.js';
import { addRoutes } from './routes.js';
import type { ApiServices } from './services.js';

export interface StartApiOptions extends ApiServices {
  /** Loopback address. */
  readonly listen: string;
  /** 0: the socket alone. */
  readonly port: number;
  readonly socketPath: string | null;
  readonly version: string;
  /** The built UI; null: none is served. */
  readonly pages?: Pages | null;
  readonly clock?: Clock;
  readonly log?: Log;
  /** Silence after which a heartbeat goes out on event streams. */
  readonly heartbeatMs?: number;
}

export interface ApiHandle {
  /** For tests: requests without a socket. */
  readonly inject: Api['inject'];
  close(): Promise<void>;
}

/** @throws ProblemError port-in-use, capability-missing, interface-missing */
export async function startApi(options: StartApiOptions): Promise<ApiHandle> {
  const {
    listen,
    port,
    socketPath,
    version,
    pages = null,
    clock = systemClock,
    log = silentLog,
    heartbeatMs,
  } = options;
  const server = await createApiServer({ title: 'Halligan', version, log, listen, port, socketPath, pages });
  await server.api.register(
    async scope => {
      addRoutes(scope as unknown as Api, {
        services: options,
        clock,
        version,
        closing: server.closing,
        ...(heartbeatMs === undefined ? {} : { heartbeatMs }),
      });
    },
    { prefix: '/api/v1' },
  );
  await server.start();
  return { inject: server.api.inject.bind(server.api) as Api['inject'], close: () => server.close() };
}
