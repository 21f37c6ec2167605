/** Machines for the pages: a real server's inventory, in numbers. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Inventory } from '../../provisioner/inventory/types.js';

/** Of a Dell R640, as the normaliser made it. */
export const inventory = (): Inventory =>
  JSON.parse(
    readFileSync(resolve(import.meta.dirname, '../unit/inventory/golden/dell-r640.json'), 'utf8'),
  ) as Inventory;

/** A MAC of its own for each number up to 16 million. */
export const macOf = (n: number): string =>
  `52:54:00:${[16, 8, 0].map(shift => ((n >> shift) & 255).toString(16).padStart(2, '0')).join(':')}`;
