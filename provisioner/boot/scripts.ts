/** The iPXE scripts of the two stages, from templates/ipxe/. */
import { loadTemplate, RenderError } from '../core/render.js';
import type { BootDecision, BootIdentity } from './types.js';

/** The files of the RAM environment, as the boot plane serves them. */
export interface RamFiles {
  readonly kernel: string;
  readonly initrd: string;
  /** Kernel parameters that the image asks for, before ours. */
  readonly parameters: readonly string[];
}

export interface Scripts {
  /** Stage 1. `base`: `http://ADDRESS:PORT` of the boot plane as this machine sees it. */
  who(base: string): string;
  /** Stage 2. `ram` is needed for the decision `ram`. */
  decided(base: string, identity: BootIdentity, decision: BootDecision, ram: RamFiles | null): string;
  /** Stage 2 when nothing could be decided: says why, waits, asks again. */
  retry(base: string, reason: string): string;
  nothing(reason: string): string;
}

/**
 * Compiles the templates at once, so that a broken one is noticed at start.
 * @param console serial console as the kernel takes it (`ttyS0,115200`), empty for none
 */
export function createScripts(console: string): Scripts {
  const [who, ram, local, nothing, retry] = ['who', 'ram', 'local', 'nothing', 'retry'].map(n =>
    loadTemplate(`ipxe/${n}.ipxe.hbs`),
  ) as [Render, Render, Render, Render, Render];
  // The last console= becomes /dev/console, where the RAM environment reports.
  const consoles = ['tty0', ...(console === '' ? [] : [console])];
  const scripts: Scripts = {
    who: base => who({ base }),
    retry: (base, reason) => retry({ base, reason }),
    nothing: reason => nothing({ reason }),
    decided(base, { mac }, decision, files) {
      if (decision.kind === 'local') return local({ base, mac, reason: decision.reason });
      if (decision.kind === 'nothing') return nothing({ reason: decision.reason });
      if (!files) throw new RenderError('the RAM environment has no files');
      const { image, token, rescue, reason } = decision;
      return ram({ base, mac, image, token, rescue, reason, consoles, ...files });
    },
  };
  // Fail at start rather than in front of a machine when the console or a template is not printable.
  const sample: BootIdentity = {
    mac: '02:00:00:00:00:01',
    uuid: null,
    serial: null,
    manufacturer: null,
    product: null,
    platform: null,
  };
  scripts.decided(
    'http://192.0.2.1:7481',
    sample,
    { kind: 'ram', image: 'ram', token: 'x', reason: '', rescue: true },
    { kernel: 'k', initrd: 'i', parameters: ['quiet'] },
  );
  return scripts;
}

type Render = ReturnType<typeof loadTemplate>;
