/** Switching a machine. Drivers: ipmi (ipmitool), redfish (own client), manual (asks a person). */
import type { Bmc } from '../site/schema.js';

export type PowerState = 'on' | 'off' | 'unknown';

/** All methods throw ProblemError: bmc-auth, bmc-silent, bmc-protocol, bmc-unsupported. */
export interface PowerDriver {
  status(): Promise<PowerState>;
  on(): Promise<void>;
  /** At once, without asking the operating system. */
  off(): Promise<void>;
  /** The next boot, and only that, comes from the network. */
  bootFromNetworkOnce(firmware: 'bios' | 'uefi' | null): Promise<void>;
  /** Gives sessions back to the BMC. */
  close(): Promise<void>;
}

/** Makes the driver for a BMC whose password was already resolved from its reference. */
export type PowerDriverFactory = (bmc: Bmc, password: string | null) => PowerDriver;

/** What the state loop uses: drivers with verification, back-off after refused credentials, and the power cache. */
export interface Power {
  status(nodeId: string): Promise<PowerState>;
  /**
   * Sets the power and waits until the BMC reports it; a BMC that accepts but does not act yields bmc-lies. `cycle` is
   * off (when on), then on, each of them verified: a BMC's own cycle command could not be told from nothing.
   */
  set(nodeId: string, action: 'on' | 'off' | 'cycle'): Promise<PowerState>;
  /** Off when on, bootFromNetworkOnce, on. In this order: some BMCs forget the override when power goes off. */
  netboot(nodeId: string): Promise<void>;
  /** False for `manual` and for nodes without a BMC: a person has to do it. */
  automatic(nodeId: string): Promise<boolean>;
  close(): Promise<void>;
}
