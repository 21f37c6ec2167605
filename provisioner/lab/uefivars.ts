import type { BootOverride, LabNode } from './types.js';

/** Placeholder until the variable store is written. */
export async function setBootNext(_node: LabNode, _target: BootOverride['target']): Promise<void> {}
