/** An SSH server in this process that runs commands with the local `sh`: real protocol, no root, no sshd. */
import { spawn } from 'node:child_process';
import type { AddressInfo } from 'node:net';
import ssh2, { type Connection, type ServerChannel } from 'ssh2';

export interface ShellServer {
  readonly port: number;
  readonly hostKey: string;
  /** What happened, in order: `auth NAME`, `exec COMMAND`. */
  readonly seen: string[];
  readonly open: () => number;
  /** Connections that there ever were. */
  readonly accepted: () => number;
  /** Cuts every connection, as a pulled cable does once TCP gives up. */
  cut(): void;
  close(): Promise<void>;
}

export interface ShellServerOptions {
  readonly acceptKey?: string;
  readonly password?: string;
  /** Behaviours. */
  /** Opens no channel and does not say so: always, or on the first connections only. */
  readonly deafChannels?: boolean | number;
  /** Opens channels and never answers to a command. */
  readonly deafCommands?: boolean;
  /** Accepts the login, and answers nothing for this long, as sshd does while PAM waits for the login manager. */
  readonly sessionAfterMs?: number;
  /** Refuses more channels than this that were ever opened on a connection: its programs never end. */
  readonly maxSessions?: number;
  readonly onExec?: (command: string, channel: ServerChannel, run: () => void) => void;
  readonly keyType?: 'ed25519' | 'ecdsa';
  readonly port?: number;
  readonly hostKeyPair?: { private: string; public: string };
}

/** ssh2 makes about one ed25519 key in 256 that it cannot read itself. */
export function soundKeyPair(type: 'ed25519' | 'ecdsa' = 'ed25519'): { private: string; public: string } {
  for (;;) {
    const pair =
      type === 'ed25519'
        ? ssh2.utils.generateKeyPairSync('ed25519')
        : ssh2.utils.generateKeyPairSync('ecdsa', { bits: 256 });
    const parsed = ssh2.utils.parseKey(pair.private);
    const blob = Buffer.from(pair.public.split(' ')[1]!, 'base64');
    if (!(parsed instanceof Error) && (type !== 'ed25519' || blob.length === 51)) return pair;
  }
}

export function startShellServer(options: ShellServerOptions = {}): Promise<ShellServer> {
  const pair = options.hostKeyPair ?? soundKeyPair(options.keyType);
  const seen: string[] = [];
  const connections = new Set<Connection>();
  let accepted = 0;
  const server = new ssh2.Server({ hostKeys: [pair.private] }, client => {
    connections.add(client);
    const serial = ++accepted;
    let sessions = 0;
    client.on('error', () => {});
    client.on('close', () => connections.delete(client));
    client.on('authentication', context => {
      seen.push(`auth ${context.method} ${context.username}`);
      if (context.method === 'publickey') {
        const key = `${context.key.algo} ${context.key.data.toString('base64')}`;
        if (options.acceptKey === undefined || options.acceptKey.startsWith(key)) return context.accept();
      }
      if (context.method === 'password' && options.password !== undefined && context.password === options.password)
        return context.accept();
      context.reject(['publickey', 'password']);
    });
    client.on('ready', () => {
      if (options.sessionAfterMs !== undefined)
        client.on('request', (_accept, reject) => setTimeout(() => reject?.(), options.sessionAfterMs));
      client.on('session', (accept, reject) => {
        if (options.deafChannels === true || serial <= Number(options.deafChannels ?? 0)) return;
        if (sessions >= (options.maxSessions ?? Number.POSITIVE_INFINITY)) return reject();
        sessions++;
        const session = accept();
        session.on('exec', (acceptExec, _reject, info) => {
          seen.push(`exec ${info.command}`);
          if (options.deafCommands) return;
          const channel = acceptExec();
          const run = () => {
            const child = spawn('sh', ['-c', info.command], { stdio: ['pipe', 'pipe', 'pipe'] });
            channel.pipe(child.stdin);
            child.stdin.on('error', () => {});
            child.stdout.pipe(channel, { end: false });
            child.stderr.pipe(channel.stderr, { end: false });
            session.on('signal', (acceptSignal, _r, s) => {
              acceptSignal?.();
              child.kill(`SIG${s.name}` as NodeJS.Signals);
            });
            channel.on('close', () => child.kill('SIGKILL'));
            child.on('close', (code, signal) => {
              if (signal) channel.exit(signal.slice(3), false);
              else channel.exit(code ?? 255);
              channel.end();
            });
          };
          if (options.onExec) options.onExec(info.command, channel, run);
          else run();
        });
      });
    });
  });
  return new Promise(resolve => {
    server.listen(options.port ?? 0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      resolve({
        port,
        hostKey: pair.public.trim().split(' ').slice(0, 2).join(' '),
        seen,
        open: () => connections.size,
        accepted: () => accepted,
        cut: () => {
          // The socket below, not a polite SSH disconnect.
          for (const c of connections) (c as unknown as { _sock: { destroy(): void } })._sock.destroy();
        },
        close: () =>
          new Promise<void>(done => {
            for (const c of connections) c.end();
            server.close(() => done());
          }),
      });
    });
  });
}
