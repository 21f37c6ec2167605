import { expect, test } from 'vitest';
import type { NewEvent } from '../../../provisioner/core/events.js';
import { createRogueWatch } from '../../../provisioner/dhcp/rogue.js';

const watch = () => {
  const events: NewEvent[] = [];
  return { events, rogues: createRogueWatch(event => events.push(event)) };
};

test('another server is named once, not at each probe', () => {
  const { events, rogues } = watch();
  for (let i = 0; i < 5; i++) {
    rogues.seen('boot', '10.99.0.66', '52:54:00:66:66:66', 'probe', 1000 * i);
    rogues.probed('boot');
  }
  expect(events).toEqual([
    {
      type: 'dhcp.rogue',
      severity: 'warn',
      message:
        'Another DHCP server, 10.99.0.66 (52:54:00:66:66:66), answers on network boot; nodes may boot from it instead.',
      data: { network: 'boot', server: '10.99.0.66', mac: '52:54:00:66:66:66', how: 'probe' },
    },
  ]);
  expect(rogues.list()).toMatchObject([{ server: '10.99.0.66', firstSeenMs: 0, lastSeenMs: 4000 }]);
});

test('it is named again when its Ethernet address changes, and when it comes back', () => {
  const { events, rogues } = watch();
  rogues.seen('boot', '10.99.0.66', null, 'request', 1);
  rogues.seen('boot', '10.99.0.66', '52:54:00:66:66:66', 'probe', 2);
  rogues.seen('boot', '10.99.0.66', '52:54:00:77:77:77', 'probe', 3);
  for (let i = 0; i < 4; i++) rogues.probed('boot');
  expect(rogues.list()).toEqual([]);
  rogues.seen('boot', '10.99.0.66', '52:54:00:77:77:77', 'probe', 4);
  expect(events.map(e => e.type)).toEqual(['dhcp.rogue', 'dhcp.rogue', 'dhcp.rogue-gone', 'dhcp.rogue']);
});

test('a client that names thousands of servers fills neither memory nor the event feed', () => {
  const { events, rogues } = watch();
  for (let i = 0; i < 10_000; i++) rogues.seen('boot', `10.0.${i >> 8}.${i & 255}`, null, 'request', i);
  expect(rogues.list()).toHaveLength(32);
  expect(events).toHaveLength(32);
});
