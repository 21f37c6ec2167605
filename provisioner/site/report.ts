/** What the checks of a site share: how a fault is told, and what was found out about the networks. */
import type { Cidr } from '../core/net/ipv4.js';
import { fieldName } from '../core/schema/explain.js';
import type { Network } from './schema.js';

export type Path = readonly (string | number)[];
export type Report = (path: Path, message: string) => void;

/** A network of the site that has no fault of its own. */
export interface Subnet {
  readonly index: number;
  readonly network: Network;
  readonly cidr: Cidr;
  /** The pool. */
  readonly from: number;
  readonly to: number;
}

/** Values that may stand only once, with the place of the first. */
export class Unique {
  private readonly first = new Map<string, Path>();
  constructor(
    private readonly report: Report,
    private readonly noun: string,
  ) {}
  add(value: string, path: Path): void {
    const other = this.first.get(value);
    if (!other) this.first.set(value, path);
    else this.report(path, `${this.noun} ${value} is already used at ${fieldName(other)}`);
  }
}
