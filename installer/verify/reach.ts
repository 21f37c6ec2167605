/** Reaching guests from this machine: the system's ping, a TCP connection, SSH with a host key known beforehand. */
import { execFile } from 'node:child_process';
import { connect as connectTcp } from 'node:net';
import { connect } from '../../provisioner/core/executor/connection.js';
import { ProblemError, problem } from '../../provisioner/core/problem.js';
import type { Reach, TcpAnswer } from './types.js';

const OUTPUT_MAX = 1024 * 1024;

/** `3 packets transmitted, 2 received` of iputils and busybox. Pure. */
export function readPing(output: string, count: number): { sent: number; received: number } {
  const m = /(\d+) packets transmitted, (\d+)(?: packets)? received/.exec(output);
  return m ? { sent: Number(m[1]), received: Number(m[2]) } : { sent: count, received: 0 };
}

/** Takes `run` to start programs, so that they can run in another network namespace or on another host. */
export function createReach(
  run: (program: string, args: readonly string[], signal?: AbortSignal) => Promise<string> = runHere,
): Reach {
  return {
    ping: async (address, { count, timeoutMs, bytes, signal }) => {
      const seconds = Math.max(1, Math.ceil(timeoutMs / 1000));
      const args = [
        '-n',
        '-c',
        String(count),
        '-W',
        String(seconds),
        ...(bytes ? ['-s', String(bytes)] : []),
        '--',
        address,
      ];
      return readPing(await run('ping', args, signal), count);
    },

    connects: (address, port, { timeoutMs, signal }) =>
      new Promise(resolve => {
        const socket = connectTcp({ host: address, port });
        const end = (answer: TcpAnswer) => {
          clearTimeout(timer);
          signal?.removeEventListener('abort', onAbort);
          socket.destroy();
          resolve(answer);
        };
        const onAbort = () => end('silent');
        const timer = setTimeout(() => end('silent'), timeoutMs);
        signal?.addEventListener('abort', onAbort, { once: true });
        socket
          .once('connect', () => end('taken'))
          .once('error', (error: NodeJS.ErrnoException) =>
            end(/^(ECONNREFUSED|ECONNRESET)$/.test(error.code ?? '') ? 'refused' : 'silent'),
          );
      }),

    ssh: async (address, hostKey, privateKey, command, { user, timeoutMs, signal }) => {
      const connection = await connect(
        { address, user, hostKey },
        {
          auth: { kind: 'key', privateKey },
          // A third: what a guest's key exchange takes grows with what its commands take.
          connectTimeoutMs: timeoutMs / 3,
          sessionTimeoutMs: timeoutMs / 3,
          ...(signal ? { signal } : {}),
        },
      );
      try {
        const channel = await connection.exec(command);
        return await new Promise((resolve, reject) => {
          let stdout = '';
          let stderr = '';
          let code: number | null = null;
          const give = (action: () => void) => {
            clearTimeout(timer);
            signal?.removeEventListener('abort', onAbort);
            action();
          };
          const refuse = (code: 'timed-out' | 'ssh-failed', message: string) =>
            give(() => reject(new ProblemError(problem(code, message))));
          const onAbort = () => give(() => reject(signal?.reason));
          const timer = setTimeout(
            () => refuse('timed-out', `A command on ${address} did not end within ${Math.round(timeoutMs / 1000)} s.`),
            timeoutMs,
          );
          if (signal?.aborted) return onAbort();
          signal?.addEventListener('abort', onAbort, { once: true });
          channel.on('data', (data: Buffer) => {
            if (stdout.length < OUTPUT_MAX) stdout += data.toString('latin1');
          });
          channel.stderr.on('data', (data: Buffer) => {
            if (stderr.length < OUTPUT_MAX) stderr += data.toString('latin1');
          });
          channel.on('exit', (exit: number | null) => {
            code = exit;
          });
          // Without an exit code the command did not end: the guest or the way to it was gone.
          channel.on('close', () =>
            code === null
              ? refuse('ssh-failed', `The connection to ${address} was lost while a command ran.`)
              : give(() => resolve({ code: code as number, stdout, stderr })),
          );
          channel.on('error', (error: Error) => give(() => reject(error)));
          channel.end();
        });
      } finally {
        connection.close();
      }
    },
  };
}

/** The output, whatever the exit code: ping says by it that nothing came back. */
function runHere(program: string, args: readonly string[], signal?: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(
      program,
      [...args],
      { timeout: 60_000, maxBuffer: OUTPUT_MAX, ...(signal ? { signal } : {}) },
      (error, stdout) => {
        if (error && (error as NodeJS.ErrnoException).code === 'ENOENT') {
          reject(new ProblemError(problem('dependency-missing', `The program ${program} is not installed here.`)));
          return;
        }
        if (signal?.aborted) return reject(signal.reason);
        resolve(stdout);
      },
    );
  });
}
