import { describe, expect, it } from 'vitest';
import type { FeedEvent } from '../../../provisioner/core/events.js';
import { stageSeconds, stageTable } from '../../../provisioner/demo/stages.js';

const at = (atMs: number, type: string, data: Record<string, unknown> = {}): FeedEvent => ({
  id: atMs,
  atMs,
  type,
  severity: 'info',
  nodeId: 'n',
  message: '',
  data,
});

describe('seconds per stage', () => {
  const events = [
    at(5_000, 'boot.decision'),
    at(30_000, 'node.called-home'),
    at(31_000, 'node.state', { to: 'available' }),
    at(60_000, 'install.written'),
    at(62_000, 'boot.decision'),
    at(120_000, 'node.first-boot'),
    at(121_500, 'node.state', { to: 'installed' }),
  ];
  it('add up to the time from power-on to SSH', () => {
    const times = stageSeconds(events, 1_000);
    expect(times.stages).toEqual({ firmware: 4, ram: 25, install: 30, boot: 60, ssh: 1.5 });
    expect(times.totalSeconds).toBe(120.5);
    expect(Object.values(times.stages).reduce((a, b) => a + b, 0)).toBe(times.totalSeconds);
  });
  it('end with the last stage that was reached', () => {
    expect(stageSeconds(events.slice(0, 3), 1_000)).toEqual({ stages: { firmware: 4, ram: 25 }, totalSeconds: null });
  });
  it('make a table that names the failure', () => {
    const { stages, totalSeconds } = stageSeconds(events, 1_000);
    const table = stageTable([
      {
        name: 'n1',
        firmware: 'bios',
        image: 'debian-12-cloud',
        result: 'installed',
        stages,
        totalSeconds,
        cpuSeconds: 99.25,
        address: '10.99.0.10',
        login: 'ubuntu',
      },
      {
        name: 'n2',
        firmware: 'uefi',
        image: 'debian-12-cloud',
        result: 'failed',
        reason: 'no disk',
        stages: {},
        totalSeconds: null,
        cpuSeconds: null,
        address: null,
        login: null,
      },
    ]);
    expect(table).toBe(
      [
        'node  firmware  firmware   ram  install  boot  ssh  total  CPU s  result',
        'n1    BIOS           4.0  25.0     30.0  60.0  1.5  120.5   99.3  installed',
        'n2    UEFI             –     –        –     –    –      –      –  failed: no disk',
      ].join('\n'),
    );
  });
});
