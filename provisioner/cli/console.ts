/** A serial console on the terminal: raw both ways, left with `~.` at the beginning of a line, as with ssh and ipmitool. */

import { fail } from '../core/problem.js';
import type { Context } from './context.js';

/**
 * What is typed, with the escape taken out: `~.` after a new line leaves, `~~` is one tilde. Pure.
 * @param state carried from call to call
 */
export interface EscapeState {
  readonly at: 'line-start' | 'tilde' | 'inside';
}
export function escapeInput(
  state: EscapeState,
  typed: Uint8Array,
): { state: EscapeState; send: Uint8Array; leave: boolean } {
  const send: number[] = [];
  let { at } = state;
  for (const byte of typed) {
    if (at === 'tilde') {
      if (byte === 0x2e) return { state: { at: 'line-start' }, send: Uint8Array.from(send), leave: true };
      send.push(0x7e);
      at = 'inside';
      if (byte === 0x7e) continue;
    } else if (at === 'line-start' && byte === 0x7e) {
      at = 'tilde';
      continue;
    }
    send.push(byte);
    at = byte === 0x0d || byte === 0x0a ? 'line-start' : 'inside';
  }
  return { state: { at }, send: Uint8Array.from(send), leave: false };
}

export async function attachConsole(
  context: Context,
  path: string,
  options: { bytes: number; tail?: boolean },
): Promise<void> {
  const { deps } = context;
  const api = context.api();
  if (options.tail) {
    for await (const chunk of await api.stream(`${path}?bytes=${Math.max(1, options.bytes)}`)) deps.stdout.write(chunk);
    return;
  }
  const left = new AbortController();
  const signal = AbortSignal.any([deps.signal, left.signal]);
  const output = await api.stream(`${path}/stream?bytes=${options.bytes}`, { signal });
  const interactive = Boolean(deps.stdin.isTTY);
  if (interactive) {
    context.note('Connected; leave with ~. at the beginning of a line.');
    deps.stdin.setRawMode?.(true);
  }
  const typing = (async () => {
    let state: EscapeState = { at: 'line-start' };
    for await (const chunk of deps.stdin) {
      if (signal.aborted) return;
      const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
      // Off a terminal nothing is an escape: what is piped in arrives as it is.
      const next = interactive ? escapeInput(state, bytes) : { state, send: bytes, leave: false };
      state = next.state;
      if (next.send.length > 0) await api.bytes(`${path}/input`, next.send);
      if (next.leave) return left.abort();
    }
  })();
  typing.catch(() => left.abort());
  try {
    for await (const chunk of output) deps.stdout.write(chunk);
    if (!signal.aborted)
      fail('console-missing', 'The server ended the console.', { retry: true, hint: 'Connect again.' });
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    left.abort();
    if (interactive) deps.stdin.setRawMode?.(false);
  }
  if (interactive) context.note('\nDisconnected.');
}
