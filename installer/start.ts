/** The cloud half as one thing, for the composition root. */
import { join } from 'node:path';
import type { CloudHalf } from '../provisioner/core/cloud-host.js';
import { packageRoot } from '../provisioner/core/distributions/load.js';
import { fail } from '../provisioner/core/problem.js';
import { createCloudService } from './cloud/service.js';
import type { Catalogue } from './model/catalogue.js';
import { checkCatalogue } from './model/check.js';
import { loadReleases, unknownRelease } from './model/releases.js';
import { openTemplates } from './model/templates.js';

/**
 * Checks the catalogue and the releases: both are ours, so a fault in them is an error of the program, with its place.
 * @throws Error
 */
export function createCloudHalf(catalogue: Catalogue): CloudHalf {
  const rolesDir = join(packageRoot(), 'roles');
  const releases = loadReleases();
  const templates = openTemplates(rolesDir);
  const faults = checkCatalogue(catalogue, releases, rolesDir, templates);
  if (faults.length > 0) throw new Error(`the catalogue of roles/ is wrong:\n${faults.join('\n')}`);
  return {
    catalogue: {
      services: [...catalogue.services.values()].map(({ name, title, sentence, needs }) => ({
        name,
        title,
        sentence,
        needs,
      })),
      roles: [...catalogue.roles.values()],
    },
    archivesOf: name => releases.get(name) ?? null,
    start(host) {
      const release = releases.get(host.settings.release);
      if (!release) {
        const { message, hint } = unknownRelease(host.settings.release, [...releases.keys()]);
        return fail('site-invalid', message, { hint });
      }
      return createCloudService({
        ...host,
        catalogue,
        release,
        templates,
      });
    },
  };
}
