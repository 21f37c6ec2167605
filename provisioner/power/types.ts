/** Switching a machine. Drivers: ipmi (ipmitool), redfish (own client), manual (asks a person). */
import type { Bmc } from '../site/schema.js';

export type PowerState = 'on' | 'off' | 'unknown';

/** All methods throw ProblemError: bmc-auth, bmc-silent, bmc-protocol, bmc-unsupported. */
export interface PowerDriver {
  status(): Promise<PowerState>;
  on(): Promise<void>;
  off(): Promise<void>;
  /** Off when on, then on. */
  cycle(): Promise<void>;
  /** The next boot, and only that, comes from the network. */
  bootFromNetworkOnce(firmware: 'bios' | 'uefi' | null): Promise<void>;
}

/** Makes the driver for a BMC whose password was already resolved from its reference. */
export type PowerDriverFactory = (bmc: Bmc, password: string | null) => PowerDriver;

/** What the state loop uses: drivers with verification, back-off after refused credentials, and the power cache. */
export interface Power {
  status(nodeId: string): Promise<PowerState>;
  /** Sets the power and waits until the BMC reports it; a BMC that accepts but does not act yields bmc-lies. */
  set(nodeId: string, action: 'on' | 'off' | 'cycle'): Promise<PowerState>;
  /** bootFromNetworkOnce, then on or cycle. */
  netboot(nodeId: string): Promise<void>;
  /** False for `manual` and for nodes without a BMC: a person has to do it. */
  automatic(nodeId: string): Promise<boolean>;
}
