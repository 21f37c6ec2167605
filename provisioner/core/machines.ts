/** Nodes on their way to an installed system, as the plan sees them: what it takes, what it costs, and the order to do it. */

/** Hardware of a node that has no system of ours yet, from its inventory, as its system will show it. */
export interface ExpectedHardware {
  readonly architecture: string;
  readonly cpus: number;
  readonly memoryMiB: number;
  readonly kvm: boolean;
  readonly kernel: string;
  readonly interfaces: readonly {
    readonly name: string;
    readonly mac: string;
    readonly mtu: number;
    /** `10.99.0.7/24`; empty where an address is given out later. */
    readonly addresses: readonly string[];
    readonly gateway: string | null;
  }[];
  readonly disks: readonly { readonly path: string; readonly bytes: number; readonly signature: string | null }[];
}

/** What has to be done until the system of a node answers SSH. */
export interface MachinePlan {
  /** Begins with its verb: `install debian-12 on /dev/vda, layout plain`. */
  readonly title: string;
  /** Why: `it is available and has no system`. */
  readonly reason: string;
  /** Why it cannot be done, a sentence, and what to do about it; null where it can. */
  readonly refusal: { readonly message: string; readonly hint: string } | null;
  /** Data that goes, a sentence without full stop; null: none. It then needs the operator's word. */
  readonly destroys: string | null;
  readonly interrupts: string | null;
  readonly expectedSeconds: number;
  /** Where it will answer; null where that is not known. */
  readonly address: string | null;
  /** Null where nothing is known of it yet. */
  readonly hardware: ExpectedHardware | null;
}

export interface Machines {
  /** Null where its system answers already, or is said to. */
  plan(node: string): Promise<MachinePlan | null>;
  /**
   * Drives a node to an installed system: inspects, claims, installs, whatever is left, and waits for the end. Called again
   * after a restart of the server it goes on where it was.
   * @param begun it was begun earlier: a failure since then is the end, and nothing is ordered anew
   * @param wipe data of others on its disks may go
   * @throws ProblemError the failure of the node, with its sentence
   */
  prepare(
    node: string,
    options: { readonly wipe: boolean; readonly begun: boolean },
    signal: AbortSignal,
  ): Promise<void>;
}
