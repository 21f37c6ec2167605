import { createServer } from 'node:http';
import { connect } from 'node:net';
import { expect, it } from 'vitest';
import { streamEvents } from '../../../provisioner/core/api/event-stream.js';
import { systemClock } from '../../../provisioner/core/clock.js';
import { feedInMemory } from './fakes.js';

it('cuts a client that takes nothing, holding no more than a batch for it', async () => {
  const feed = feedInMemory();
  const big = 'x'.repeat(50_000);
  for (let i = 0; i < 1000; i++) await feed.emit({ type: 't', message: big });
  let asked = 0;
  const counted = {
    ...feed,
    after: (...args: Parameters<typeof feed.after>) => {
      asked++;
      return feed.after(...args);
    },
  };
  let over = () => {};
  const ended = new Promise<void>(resolve => {
    over = resolve;
  });
  const server = createServer((_request, response) => {
    const { signal } = new AbortController();
    streamEvents({ feed: counted, clock: systemClock, response, afterId: 0, signal, stallMs: 200 }).finally(over);
  }).listen(0, '127.0.0.1');
  await new Promise(resolve => server.once('listening', resolve));
  const client = connect((server.address() as { port: number }).port, '127.0.0.1');
  client.on('error', () => {});
  client.pause();
  client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await ended;
  // 50 MB were there to send; no more than the first batch or two was read for a client that reads nothing.
  expect(asked).toBeLessThanOrEqual(2);
  client.destroy();
  server.closeAllConnections();
  await new Promise(resolve => server.close(resolve));
});

it('ends at once when its client goes while it waits', async () => {
  const feed = feedInMemory();
  let over = () => {};
  const ended = new Promise<void>(resolve => {
    over = resolve;
  });
  const server = createServer((_request, response) => {
    const { signal } = new AbortController();
    streamEvents({ feed, clock: systemClock, response, afterId: null, signal }).finally(over);
  }).listen(0, '127.0.0.1');
  await new Promise(resolve => server.once('listening', resolve));
  const client = connect((server.address() as { port: number }).port, '127.0.0.1');
  client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await new Promise(resolve => client.once('data', resolve));
  client.destroy();
  await ended;
  server.closeAllConnections();
  await new Promise(resolve => server.close(resolve));
});
