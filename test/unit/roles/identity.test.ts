import { describe, expect, it } from 'vitest';
import { ACTIVE_KEYS } from '../../../roles/identity/service.js';
import { desired, filesOf } from './fixture.js';

describe('keys of tokens', () => {
  const files = filesOf(desired(), 'ctl');
  const own = desired()
    .placed.filter(p => p.node === 'ctl' && p.service === 'identity')
    .map(p => p.resource);

  it('are rotated each day on the controller, and as many stay as tokens are good for', () => {
    const config = files.get('/etc/keystone/keystone.conf')!.content;
    const number = (key: string) => Number(new RegExp(`^${key} = (\\d+)$`, 'm').exec(config)?.[1]);
    expect(files.get('/etc/systemd/system/keystone-fernet-rotate.timer')!.content).toMatch(/^OnCalendar=daily$/m);
    const days = (number('expiration') + number('allow_expired_window')) / 86_400;
    // One signs, one is next; each that signed in these days must still be there.
    expect(number('max_active_keys')).toBe(ACTIVE_KEYS);
    expect(ACTIVE_KEYS - 2).toBeGreaterThanOrEqual(days);
    expect(own.some(r => r.kind === 'unit' && r.unit === 'keystone-fernet-rotate.timer')).toBe(true);
  });

  it('are laid down once: an apply after a rotation leaves them, and restarts nothing', () => {
    expect([...files.keys()].filter(path => path.includes('/fernet-keys/'))).toEqual([]);
    const seed = own.find(r => r.id === 'command:token-keys');
    if (seed?.kind !== 'command') throw new Error('no command lays them down');
    expect(seed.check).toContain('/etc/keystone/fernet-keys/0');
    expect(seed.apply).not.toContain('SECRET');
    const api = own.find(r => r.kind === 'unit' && r.unit === 'keystone.service');
    expect(api?.kind === 'unit' && api.watches.filter(w => w.includes('fernet'))).toEqual([]);
  });
});
