/** The graphical console, as a browser opens it: the page, then a websocket that speaks RFB (RFC 6143). */
import { WebSocket } from 'undici';
import type { Http } from '../../openstack/http.js';
import { text } from '../../openstack/json.js';
import { broken, call, made, type VerifyContext } from '../context.js';
import { passed, type Step } from '../runner.js';
import { pair } from './reachability.js';

/** Where noVNC's page opens its websocket: the `path` of its query, or the token alone. Pure. */
export function websocketUrl(pageUrl: string): string | undefined {
  if (!URL.canParse(pageUrl)) return undefined;
  const page = new URL(pageUrl);
  const path = page.searchParams.get('path');
  const token = page.searchParams.get('token');
  const rest = path ?? (token ? `websockify?token=${token}` : undefined);
  if (rest === undefined) return undefined;
  return `${page.protocol === 'https:' ? 'wss' : 'ws'}://${page.host}/${rest.replace(/^\/+/, '')}`;
}

/** The first bytes of the server, up to `wanted` of them. */
export function firstBytes(
  http: Http,
  url: string,
  origin: string,
  wanted: number,
  signal: AbortSignal,
): Promise<string> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const socket = new WebSocket(url, { protocols: ['binary'], dispatcher: http.dispatcher, headers: { origin } });
    socket.binaryType = 'arraybuffer';
    const got: Buffer[] = [];
    const end = (finish: () => void) => {
      signal.removeEventListener('abort', onAbort);
      finish();
      socket.close();
    };
    const onAbort = () => end(() => reject(signal.reason));
    signal.addEventListener('abort', onAbort, { once: true });
    socket.addEventListener('message', event => {
      const data: unknown = event.data;
      got.push(data instanceof ArrayBuffer ? Buffer.from(data) : Buffer.from(String(data), 'latin1'));
      const all = Buffer.concat(got);
      if (all.length >= wanted) end(() => resolve(all.toString('latin1')));
    });
    const lost = (why: string) => end(() => reject(new Error(why)));
    socket.addEventListener('error', event => {
      // The proxy's URL holds the token of the console: not in a message.
      const said = (event as { message?: string }).message ?? '';
      lost(`the websocket was not opened${said && !said.includes('token') ? ` (${said.slice(0, 120)})` : ''}`);
    });
    socket.addEventListener('close', () => lost(`the websocket was closed after ${Buffer.concat(got).length} bytes`));
  });
}

export const graphicalConsole: Step<VerifyContext> = {
  name: 'console',
  title: 'The graphical console opens',
  needs: ['servers'],
  expectedSeconds: 2,
  timeoutSeconds: 60,
  hint: 'Look at nova-novncproxy on the controller (it must be the novnc type, not spice), and whether it reaches the compute’s VNC port (5900 and up) with the right certificates.',
  run: async (context, control) => {
    const { admin } = context;
    const [a] = pair(context);
    const { body } = await call(
      made(context, 'user'),
      control,
      'compute',
      'POST',
      `/servers/${a.id}/remote-consoles`,
      { remote_console: { protocol: 'vnc', type: 'novnc' } },
      { microversion: '2.6' },
    );
    const url = text(body, 'remote_console', 'url');
    const socketUrl = websocketUrl(url);
    if (socketUrl === undefined) return broken('Nova gave no usable address for the console.');
    const { origin, pathname } = new URL(url);
    const where = origin + pathname;
    const page = await admin.http.send({ method: 'GET', url, signal: control.signal, timeoutMs: 20_000 });
    if (page.status !== 200) broken(`The console's page ${where} answers ${page.status}.`);
    let banner: string;
    try {
      banner = await firstBytes(admin.http, socketUrl, origin, 12, control.signal);
    } catch (error) {
      control.signal.throwIfAborted();
      return broken(`The console's page ${where} is there, but ${(error as Error).message}.`);
    }
    if (!banner.startsWith('RFB 003.'))
      broken(`The console at ${where} does not speak RFB: ${JSON.stringify(banner.slice(0, 12))}.`);
    return passed({ page: where, protocol: banner.trim() });
  },
};
