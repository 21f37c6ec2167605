/** What a known node boots from the network, by its state. Pure; the token is added by the oracle. */
import type { BaseState, NodeState, WorkingState } from './lifecycle.js';
import { isFailure, stateLabel } from './lifecycle.js';
import type { Node } from './types.js';

export type BootChoice =
  | { readonly kind: 'ram'; readonly rescue: boolean; readonly reason: string }
  | { readonly kind: 'local'; readonly reason: string };

const ram = (reason: string, rescue = false): BootChoice => ({ kind: 'ram', rescue, reason });
const local = (reason: string): BootChoice => ({ kind: 'local', reason });

type ByState = { [S in BaseState]: (node: Node) => BootChoice };

const CHOICES: ByState = {
  discovered: () => ram('it is new and gets inspected'),
  inspecting: () => ram('it is being inspected'),
  available: () => ram('it is available and waits in the RAM environment'),
  claimed: () => ram('it is claimed and waits in the RAM environment for its installation'),
  installing: node => (node.status.diskReady ? local('its disk has just been written') : ram('it is being installed')),
  installed: () => local('it is installed'),
  applying: () => local('it is installed'),
  ready: () => local('it is ready'),
  releasing: () => ram('its disks are being erased'),
  rescuing: () => ram('rescue was ordered', true),
  rescue: () => ram('it is in rescue', true),
};

/** After a failure the machine comes up where somebody can look at it, and nothing is written. */
const FAILURE_CHOICES: { [S in WorkingState]: (node: Node) => BootChoice } = {
  inspecting: () => ram('its inspection failed; the RAM environment lets you look'),
  installing: () => ram('its installation failed; the RAM environment lets you look, nothing is written'),
  applying: () => local('it is installed'),
  releasing: () => ram('its release failed; the RAM environment lets you look'),
  rescuing: node => (node.status.diskReady ? local('entering rescue failed') : ram('entering rescue failed')),
};

export function chooseBoot(node: Node): BootChoice {
  const state: NodeState = node.state;
  const choice = isFailure(state)
    ? FAILURE_CHOICES[state.slice(0, -'-failed'.length) as WorkingState](node)
    : CHOICES[state as BaseState](node);
  return { ...choice, reason: `${node.name} is ${stateLabel(state)}: ${choice.reason}` };
}

/** Null when DHCP gives the node a boot file, else why not. Every node boots from us: that is how we stay in control. */
export function noBootFile(node: Node): string | null {
  return node.maintenance === null ? null : `${node.name} is in maintenance (${node.maintenance})`;
}
