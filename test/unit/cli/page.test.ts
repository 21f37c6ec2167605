import { expect, it } from 'vitest';
import { buildCli, type CliDeps } from '../../../provisioner/cli/cli.js';
import { cliPage } from '../../../provisioner/cli/page.js';

it('docs/cli.md is what the commands say', async () => {
  const program = buildCli({ version: '0', stdout: {}, stderr: {}, env: {} } as unknown as CliDeps);
  await expect(cliPage(program)).toMatchFileSnapshot('../../../docs/cli.md');
});
