import { describe, expect, it } from 'vitest';
import { packagesOfRoles } from '../../../installer/model/packages.js';
import { loadRelease, releaseNames } from '../../../installer/model/releases.js';
import { machineFacts } from '../../../installer/model/sample.js';
import { ROLE_NAMES } from '../../../provisioner/core/cloud-settings.js';
import { cloudSettings } from '../../../provisioner/site/cloud.js';
import { loadSiteOrThrow } from '../../../provisioner/site/load.js';
import { catalogue } from '../../../roles/catalogue.js';

const SITE = `version: 1
name: x
networks: [{name: boot, cidr: 10.99.0.0/24, interface: br0, pool: {from: 10.99.0.100, to: 10.99.0.149}}]
cloud: {volumes: {devices: [{path: /dev/sdb}]}, objects: {devices: [{path: /dev/sdc}]}}
`;
const settings = cloudSettings(loadSiteOrThrow(SITE, 'site.yaml').site)!;
const roles = ROLE_NAMES.filter(r => catalogue.roles.has(r));

describe('what is baked for a real machine', () => {
  it.each(releaseNames())('every role of %s has packages', name => {
    const release = loadRelease(name)!;
    const of = (...has: string[]) =>
      packagesOfRoles(
        { catalogue, release, settings: { ...settings, release: name }, facts: machineFacts(release) },
        has,
      ).packages;
    for (const role of roles) expect(of(role).length, role).toBeGreaterThan(3);
    const [control, compute] = [of('controller'), of('compute')];
    expect(of('controller', 'compute')).toEqual(expect.arrayContaining([...control, ...compute]));
  });

  it('is of the distribution that the release is for', () => {
    expect(machineFacts(loadRelease('ubuntu-24.04-caracal')!).os).toEqual({ id: 'ubuntu', version: '24.04' });
  });
});
