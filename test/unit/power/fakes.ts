import { ProblemError, problem } from '../../../provisioner/core/problem.js';
import type { PowerDriver, PowerState } from '../../../provisioner/power/types.js';

export interface FakeBmc extends PowerDriver {
  readonly calls: string[];
  state: PowerState;
}

/** A BMC that does what it is told, after `lag` reads of its state. */
export function obedientBmc(state: PowerState = 'off', lag = 0): FakeBmc {
  const calls: string[] = [];
  let wanted = state;
  let reads = 0;
  const bmc: FakeBmc = {
    calls,
    state,
    async status() {
      calls.push('status');
      if (wanted !== bmc.state && reads-- <= 0) bmc.state = wanted;
      return bmc.state;
    },
    async on() {
      calls.push('on');
      wanted = 'on';
      reads = lag;
    },
    async off() {
      calls.push('off');
      wanted = 'off';
      reads = lag;
    },
    async bootFromNetworkOnce(firmware) {
      calls.push(`netboot ${firmware}`);
    },
    async close() {
      calls.push('close');
    },
  };
  return bmc;
}

/** Accepts every command and does nothing. */
export function lyingBmc(state: PowerState = 'off'): FakeBmc {
  const bmc = obedientBmc(state);
  return Object.assign(bmc, {
    on: async () => void bmc.calls.push('on'),
    off: async () => void bmc.calls.push('off'),
  });
}

const failing = (code: 'bmc-silent' | 'bmc-auth', message: string): FakeBmc => {
  const bmc = obedientBmc();
  const refuse = (what: string) => async (): Promise<never> => {
    bmc.calls.push(what);
    throw new ProblemError(problem(code, message));
  };
  return Object.assign(bmc, {
    status: refuse('status'),
    on: refuse('on'),
    off: refuse('off'),
    bootFromNetworkOnce: refuse('netboot'),
  });
};

/** Never answers. */
export const silentBmc = () => failing('bmc-silent', 'The BMC did not answer.');

/** Refuses every password. */
export const distrustfulBmc = () => failing('bmc-auth', 'The BMC refused the user name or password.');
