/** What the boot listener needs to know of packages. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Slots } from '../boot/send-file.js';

/** What the listener shares among all that it sends. */
export interface Sending {
  /** Waits for a place among the streams. */
  readonly enter: () => Promise<() => void>;
  readonly reads: Slots;
  readonly stallMs: number;
}

export interface PackageRoute {
  /**
   * Answers GET and HEAD below /packages.
   * @param segments parts of the address behind /packages/, escapes undone
   * @throws ProblemError route-unknown, package-missing, package-source-failed, timed-out, server-busy; StreamEnded
   */
  answer(
    request: IncomingMessage,
    response: ServerResponse,
    segments: readonly string[],
    sending: Sending,
  ): Promise<void>;
}
