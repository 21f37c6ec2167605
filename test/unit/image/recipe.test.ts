import { describe, expect, it } from 'vitest';
import { loadDistribution } from '../../../provisioner/core/distributions/load.js';
import { mke2fsArgv, sgdiskArgv } from '../../../provisioner/image/disk-image.js';
import { resolveSources } from '../../../provisioner/image/mmdebstrap.js';
import { buildOsImage, osBuildPlan } from '../../../provisioner/image/os.js';
import { imageName, type KernelFlavour } from '../../../provisioner/image/os-recipe.js';

/** All that a reviewer has to see of an image: the command line of mmdebstrap, every file, every command. */
async function text(release: string, kernel: KernelFlavour): Promise<string> {
  const distribution = loadDistribution(release);
  // Debian's data names no mirror: that is the building machine's, or this.
  const options = release.startsWith('debian') ? { mirror: 'http://mirror.example/debian' } : {};
  const sources = resolveSources(distribution, [], options);
  const plan = await osBuildPlan(distribution, kernel, sources, 'TREE');
  const files = [
    ...Object.entries(plan.overlay).map(([path, content]) => ({ path, mode: 0, content })),
    ...plan.recipe.files,
  ];
  return [
    `# ${imageName(release, kernel)}${distribution.tested ? '' : ' (not run here: no archive and no keyring at hand)'}`,
    ['mmdebstrap', ...plan.argv].join(' \\\n  '),
    ...plan.recipe.commands.map(command => `chroot TREE ${command.join(' ')}`),
    `chroot TREE ${plan.recipe.grubCore.join(' ')}`,
    ['mke2fs', ...mke2fsArgv({ label: 'cloudimg-rootfs', tree: 'TREE', target: 'root.ext4', sizeMiB: 0 })].join(' '),
    ['sgdisk', ...sgdiskArgv('disk.raw')].join(' '),
    ...Object.entries(plan.recipe.esp).map(([to, from]) => `ESP ${to} <- ${from ?? 'the stub'}`),
    `==> the stub\n${plan.stub}`,
    ...files.map(({ path, mode, content }) => `==> ${path}${mode ? ` ${mode.toString(8)}` : ''}\n${content}`),
    '',
  ].join('\n');
}

describe('the recipe of an image', () => {
  for (const [release, kernel] of [
    ['debian-12', 'generic'],
    ['debian-12', 'cloud'],
    ['ubuntu-24.04', 'generic'],
    ['ubuntu-26.04', 'generic'],
  ] as const)
    it(`of ${release} with the ${kernel} kernel is what its golden shows`, async () => {
      await expect(await text(release, kernel)).toMatchFileSnapshot(`golden/${imageName(release, kernel)}.golden`);
    });

  it('is not built without the keyring that its packages are checked with', async () => {
    const build = buildOsImage({
      name: 'ubuntu-24.04',
      kernel: 'generic',
      imagesDir: '/nowhere',
      keyring: '/nowhere/keyring.gpg',
    });
    await expect(build).rejects.toMatchObject({
      problem: {
        code: 'dependency-missing',
        message: 'The keyring /nowhere/keyring.gpg, which checks packages of ubuntu-24.04, is missing.',
      },
    });
  });

  it('is not known for a release without data', async () => {
    await expect(buildOsImage({ name: 'plan-9', kernel: 'generic', imagesDir: '/nowhere' })).rejects.toMatchObject({
      problem: { code: 'image-missing' },
    });
  });
});
