/** The status sentence: one source for API, CLI and UI. Pure. */
import { type BaseState, isFailure, isWorking, legalActions, STATES, stateLabel } from './lifecycle.js';
import type { NodeView } from './service.js';
import type { Node } from './types.js';

/** 45 s · 3 min · 2 h 5 min */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 90) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function sentenceOf(node: Node, nowMs: number): string {
  const label = stateLabel(node.state);
  const frozen = node.maintenance === null ? '' : ` · in maintenance: ${node.maintenance}`;
  if (isFailure(node.state))
    return `${label}: ${node.failure?.message ?? 'no reason was recorded'} ${node.failure?.hint ?? ''}`.trim() + frozen;
  if (isWorking(node.state)) {
    const since = duration(nowMs - node.stateSinceMs);
    const of = node.deadlineMs === null ? '' : ` of at most ${duration(node.deadlineMs - node.stateSinceMs)}`;
    return `${label} · waits for ${node.waitingFor ?? 'its turn'} · ${since}${of}${frozen}`;
  }
  const state = STATES[node.state as BaseState];
  return `${label} · ${'waitsFor' in state ? `waits for ${state.waitsFor}` : 'at rest'}${frozen}`;
}

export function toView(node: Node, nowMs: number): NodeView {
  return {
    ...node,
    label: stateLabel(node.state),
    sentence: sentenceOf(node, nowMs),
    overdue: node.deadlineMs !== null && nowMs > node.deadlineMs,
    actions: legalActions(node.state),
  };
}

/** The next action for a person, a sentence. */
export function nextStep(node: Node): string {
  if (node.maintenance !== null)
    return `Look into it, then end the maintenance: halligan node update ${node.name} --no-maintenance`;
  if (isFailure(node.state))
    return node.failure?.hint ?? `Try again, or release it: halligan node release ${node.name}`;
  if (isWorking(node.state))
    return `Nothing: it goes on by itself. Follow it with halligan event follow --node ${node.name}`;
  switch (node.state) {
    case 'discovered':
      return `Start it from the network: halligan node inspect ${node.name}`;
    case 'available':
      return `Claim it: halligan node claim ${node.name}`;
    case 'claimed':
      return `Install it: halligan node install ${node.name}`;
    case 'rescue':
      return `Log in as root at ${node.status.ram?.address ?? 'its address'}; end with halligan node end-rescue ${node.name}`;
    default:
      return `Log in: ssh ${node.status.os?.login ?? 'root'}@${node.status.os?.address ?? node.name}`;
  }
}
