/**
 * The catalogue of problems: every expected failure has one code here, with what it means, what to do next, and
 * whether trying again can help. One place maps a problem to an HTTP status and to an exit code of the command line.
 */

/** Exit codes of the command line. */
export const EXIT = { ok: 0, failed: 1, usage: 2, notFound: 3, refused: 4, timedOut: 5, partly: 6 } as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

interface CatalogueEntry {
  readonly summary: string;
  readonly hint: string;
  /** Can the same thing succeed later without anybody changing anything? */
  readonly retry: boolean;
  readonly http: number;
  readonly exit: ExitCode;
}

/** Keep sorted by code; `docs/problems.md` is tested against this table, both ways. */
export const PROBLEMS = {
  aborted: {
    summary: 'An operator aborted it',
    hint: 'Order the action again when the reason for aborting is gone.',
    retry: false,
    http: 409,
    exit: EXIT.failed,
  },
  'adopt-refused': {
    summary: 'The host cannot be adopted',
    hint: 'The message names what is missing on the host. Mend it there, then run `halligan node adopt` again.',
    retry: false,
    http: 422,
    exit: EXIT.refused,
  },
  'backup-failed': {
    summary: 'The backup could not be written or read',
    hint: 'The message has the reason; nothing was changed.',
    retry: false,
    http: 500,
    exit: EXIT.failed,
  },
  'backup-invalid': {
    summary: 'The backup cannot be read',
    hint: 'Use another copy of the backup, or the right passphrase; nothing was changed.',
    retry: false,
    http: 422,
    exit: EXIT.failed,
  },
  'bmc-auth': {
    summary: 'The BMC refused the user name or password',
    hint: 'Correct the BMC credentials of the node; no further try is made with these, so that the account is not locked.',
    retry: false,
    http: 502,
    exit: EXIT.failed,
  },
  'bmc-lies': {
    summary: 'The BMC accepted a command but the node did not follow',
    hint: 'Look at the console and at the BMC itself; a cold reset of the BMC often helps.',
    retry: true,
    http: 502,
    exit: EXIT.failed,
  },
  'bmc-protocol': {
    summary: 'The BMC answered something that cannot be understood',
    hint: 'Check that the address belongs to a BMC and that the protocol (ipmi, redfish) is the right one.',
    retry: true,
    http: 502,
    exit: EXIT.failed,
  },
  'bmc-silent': {
    summary: 'The BMC did not answer in time',
    hint: 'Check cable, address and power of the BMC; `halligan node power NAME status` tries again.',
    retry: true,
    http: 504,
    exit: EXIT.timedOut,
  },
  'bmc-unsupported': {
    summary: 'The BMC cannot do what was asked',
    hint: 'Use another power driver for this node, or do this step by hand (`power: {driver: manual}`).',
    retry: false,
    http: 422,
    exit: EXIT.refused,
  },
  'body-too-large': {
    summary: 'The request is larger than allowed',
    hint: 'Send less at once; docs/api.md has the bounds.',
    retry: false,
    http: 413,
    exit: EXIT.usage,
  },
  'boot-stalled': {
    summary: 'The node did not reach the next stage of its boot in time',
    hint: 'Run `halligan boot trace MAC` to see the last packet and the missing step.',
    retry: true,
    http: 504,
    exit: EXIT.timedOut,
  },
  'capability-missing': {
    summary: 'The server lacks a permission that it needs',
    hint: 'Run it as root, or give the capability named in the message (docs/operations.md has a systemd unit).',
    retry: false,
    http: 500,
    exit: EXIT.failed,
  },
  'cloud-api-failed': {
    summary: 'A service of the cloud refused or failed a request',
    hint: 'The message has the service’s own words; its log has the request id.',
    retry: false,
    http: 502,
    exit: EXIT.failed,
  },
  'cloud-busy': {
    summary: 'The cloud is being worked on',
    hint: 'Wait for the run named in the message: `halligan run show RUN`.',
    retry: true,
    http: 409,
    exit: EXIT.refused,
  },
  'cloud-login-refused': {
    summary: 'The cloud refused the user name or password',
    hint: 'Check that the password in use is the one that was laid down: `halligan plan` shows what differs.',
    retry: false,
    http: 502,
    exit: EXIT.failed,
  },
  'cloud-missing': {
    summary: 'The site has no cloud',
    hint: 'Add `cloud: {}` to the site file, give nodes roles, and start the server again.',
    retry: false,
    http: 404,
    exit: EXIT.notFound,
  },
  'cloud-node-held': {
    summary: 'A node is left as it is because something is wrong with it',
    hint: 'Mend what the message names; the next `halligan apply` takes the node along.',
    retry: true,
    http: 409,
    exit: EXIT.failed,
  },
  'cloud-object-fixed': {
    summary: 'An object of the cloud differs in what cannot be changed while it exists',
    hint: 'Delete the object named in the message, then apply again; what uses it goes with it.',
    retry: false,
    http: 409,
    exit: EXIT.refused,
  },
  'cloud-service-missing': {
    summary: 'The cloud’s catalogue has no such service',
    hint: 'Lay the service down, or look at the catalogue: `openstack catalog list`.',
    retry: false,
    http: 502,
    exit: EXIT.failed,
  },
  'cloud-step-blocked': {
    summary: 'A step of the lay-down waits for another that failed',
    hint: 'Mend what failed; the next `halligan apply` goes on from there.',
    retry: true,
    http: 409,
    exit: EXIT.failed,
  },
  'cloud-step-failed': {
    summary: 'A step of the lay-down failed on a node',
    hint: 'The message has the node, the step and the telling line; the next `halligan apply` goes on from there.',
    retry: true,
    http: 502,
    exit: EXIT.failed,
  },
  'cloud-unreachable': {
    summary: 'A service of the cloud does not answer',
    hint: 'Check that the service runs and that the address in the message can be reached from here.',
    retry: true,
    http: 503,
    exit: EXIT.failed,
  },
  'cloud-verify-failed': {
    summary: 'A proof of the cloud failed',
    hint: 'The message names what was tried and what came of it.',
    retry: true,
    http: 502,
    exit: EXIT.failed,
  },
  'command-failed': {
    summary: 'A command failed on the node',
    hint: 'The message has the command’s last words.',
    retry: true,
    http: 502,
    exit: EXIT.failed,
  },
  'confirmation-missing': {
    summary: 'The command destroys something and was not confirmed',
    hint: 'Type the name when asked, or say `--yes` in a script.',
    retry: false,
    http: 409,
    exit: EXIT.refused,
  },
  conflict: {
    summary: 'The request does not fit the present state',
    hint: 'Read the state with `halligan node show NAME`, then repeat.',
    retry: false,
    http: 409,
    exit: EXIT.refused,
  },
  'console-missing': {
    summary: 'The node has no console that can be read',
    hint: 'Give the node a BMC with serial-over-LAN, or look at its screen.',
    retry: false,
    http: 404,
    exit: EXIT.notFound,
  },
  'content-type-refused': {
    summary: 'The request has a content type that is not accepted here',
    hint: 'Send `Content-Type: application/json`.',
    retry: false,
    http: 415,
    exit: EXIT.usage,
  },
  'database-busy': {
    summary: 'Another server uses this database',
    hint: 'Stop the other server first; two servers on one database would both drive the same nodes.',
    retry: false,
    http: 503,
    exit: EXIT.refused,
  },
  'database-newer': {
    summary: 'The database was written by a newer version',
    hint: 'Start that version, or restore a backup made by this one.',
    retry: false,
    http: 500,
    exit: EXIT.refused,
  },
  'dependency-missing': {
    summary: 'A program that is needed is not installed',
    hint: 'Install the package named in the message.',
    retry: false,
    http: 500,
    exit: EXIT.failed,
  },
  'disk-foreign': {
    summary: 'The disk carries data that Halligan does not own',
    hint: 'If the data may go, install with `--wipe`; otherwise name another disk in its `disk_layout`.',
    retry: false,
    http: 409,
    exit: EXIT.refused,
  },
  'disk-no-match': {
    summary: 'No disk of the node fits the hints',
    hint: 'Compare the hints with `halligan node show NAME`; the message says why each disk was left out.',
    retry: false,
    http: 409,
    exit: EXIT.refused,
  },
  'host-key-mismatch': {
    summary: 'The node showed another SSH host key than it handed over',
    hint: 'Somebody may stand in between. If the node was really reinstalled by hand, release and inspect it again.',
    retry: false,
    http: 502,
    exit: EXIT.refused,
  },
  'image-build': {
    summary: 'The image could not be built',
    hint: 'The log named in the message has the reason.',
    retry: true,
    http: 500,
    exit: EXIT.failed,
  },
  'image-checksum': {
    summary: 'The image does not have the expected checksum',
    hint: 'Compare the checksum with the publisher; the file was deleted.',
    retry: false,
    http: 422,
    exit: EXIT.failed,
  },
  'image-corrupt': {
    summary: 'The image on disk is damaged',
    hint: 'Delete the folder named in the message, then build or import the image again.',
    retry: false,
    http: 500,
    exit: EXIT.failed,
  },
  'image-format': {
    summary: 'The image has a format that is not accepted',
    hint: 'Give a raw image, or a qcow2 without backing and data files.',
    retry: false,
    http: 422,
    exit: EXIT.refused,
  },
  'image-missing': {
    summary: 'The image does not exist',
    hint: 'List images with `halligan image list`; build one with `halligan image build NAME`.',
    retry: false,
    http: 404,
    exit: EXIT.notFound,
  },
  'image-url': {
    summary: 'The image cannot be fetched from this address',
    hint: 'Only http and https addresses that lead to no local or private service are followed.',
    retry: false,
    http: 422,
    exit: EXIT.refused,
  },
  'install-failed': {
    summary: 'The installation failed on the node',
    hint: 'The message has the step and its last lines; `halligan node install NAME` tries again.',
    retry: true,
    http: 500,
    exit: EXIT.failed,
  },
  'interface-missing': {
    summary: 'The network interface does not exist or does not have the address',
    hint: 'Compare `networks[].interface` in the site file with `ip address`.',
    retry: false,
    http: 500,
    exit: EXIT.failed,
  },
  internal: {
    summary: 'The server hit a bug',
    hint: 'The log of the server has the particulars under the request id of the message; please report it.',
    retry: true,
    http: 500,
    exit: EXIT.failed,
  },
  'inventory-refused': {
    summary: 'The inventory report of a node was refused',
    hint: 'The message has the field; a node that sends this is broken or hostile.',
    retry: false,
    http: 400,
    exit: EXIT.failed,
  },
  'keys-unusable': {
    summary: 'A key of the server cannot be used',
    hint: 'Restore the keys from a backup (`halligan restore`); a new key would lock the server out of its nodes and secrets.',
    retry: false,
    http: 500,
    exit: EXIT.failed,
  },
  'lab-failed': {
    summary: 'The virtual lab could not do that',
    hint: '`halligan lab down` removes everything that the lab left behind; then try again.',
    retry: true,
    http: 500,
    exit: EXIT.failed,
  },
  'name-taken': {
    summary: 'The name is already in use',
    hint: 'Choose another name.',
    retry: false,
    http: 409,
    exit: EXIT.refused,
  },
  'node-unknown': {
    summary: 'There is no such node',
    hint: 'List nodes with `halligan node list`; name, MAC, serial or an unambiguous prefix is accepted.',
    retry: false,
    http: 404,
    exit: EXIT.notFound,
  },
  'not-allowed-now': {
    summary: 'The action is not possible in the present state of the node',
    hint: 'The message says from which states it is possible.',
    retry: false,
    http: 409,
    exit: EXIT.refused,
  },
  'origin-refused': {
    summary: 'The request does not come from where it may',
    hint: 'Use the API under its own address (127.0.0.1 or localhost), or by its Unix socket.',
    retry: false,
    http: 403,
    exit: EXIT.refused,
  },
  'output-limit': {
    summary: 'A command on the node printed more than is accepted',
    hint: 'The node may be broken or hostile; look at it by hand.',
    retry: false,
    http: 502,
    exit: EXIT.failed,
  },
  'package-missing': {
    summary: 'The archive does not have this file',
    hint: 'Run `apt-get update` on the node: its lists are older than the archive.',
    retry: false,
    http: 404,
    exit: EXIT.notFound,
  },
  'package-source-failed': {
    summary: 'An archive of packages does not give what was asked for',
    hint: 'Check the apt sources, the proxy and the network of the server’s machine; docs/packages.md.',
    retry: true,
    http: 502,
    exit: EXIT.failed,
  },
  'plan-changed': {
    summary: 'The plan is not the one that was read',
    hint: 'Read the plan again with `halligan plan`, then apply that one.',
    retry: false,
    http: 409,
    exit: EXIT.refused,
  },
  'plan-refused': {
    summary: 'The plan cannot be applied as it is',
    hint: 'Mend what the message names; `halligan plan` looks again.',
    retry: false,
    http: 422,
    exit: EXIT.refused,
  },
  'port-in-use': {
    summary: 'A port is already in use',
    hint: 'Stop the program that holds it (`ss -lnup`, `ss -lntp`), or change the port in the site file.',
    retry: false,
    http: 500,
    exit: EXIT.failed,
  },
  'request-invalid': {
    summary: 'The request is not valid',
    hint: 'The message names the field and what was expected.',
    retry: false,
    http: 400,
    exit: EXIT.usage,
  },
  'request-too-large': {
    summary: 'The request is larger than allowed',
    hint: 'A node that sends this is broken or hostile; the message has the limit.',
    retry: false,
    http: 413,
    exit: EXIT.refused,
  },
  'restore-refused': {
    summary: 'The backup was not restored',
    hint: 'Restore into an empty data directory, or with --force if what is there may be replaced.',
    retry: false,
    http: 409,
    exit: EXIT.refused,
  },
  'role-unknown': {
    summary: 'There is no such role',
    hint: 'List them with `halligan role list`.',
    retry: false,
    http: 404,
    exit: EXIT.notFound,
  },
  'route-unknown': {
    summary: 'There is nothing at this address',
    hint: 'The boot listener serves booting nodes only; the API is on its own address and on the socket.',
    retry: false,
    http: 404,
    exit: EXIT.notFound,
  },
  'run-unknown': {
    summary: 'There is no such run',
    hint: 'List runs with `halligan run list`.',
    retry: false,
    http: 404,
    exit: EXIT.notFound,
  },
  'secret-missing': {
    summary: 'A secret that the configuration refers to is not there',
    hint: 'Put the secret where the message says, or correct the reference.',
    retry: false,
    http: 422,
    exit: EXIT.failed,
  },
  'server-busy': {
    summary: 'The server has as much to do as it can hold',
    hint: 'It is tried again by itself; `limits` of the site file and docs/boot.md have the bounds.',
    retry: true,
    http: 503,
    exit: EXIT.failed,
  },
  'server-unreachable': {
    summary: 'The server does not answer',
    hint: 'Start it with `halligan serve --site site.yaml`, or name its socket with --socket.',
    retry: true,
    http: 503,
    exit: EXIT.failed,
  },
  'site-invalid': {
    summary: 'The site file is not valid',
    hint: 'Mend the line named in the message; `halligan site check` reads it again.',
    retry: false,
    http: 422,
    exit: EXIT.usage,
  },
  'site-owns': {
    summary: 'The site file owns this value',
    hint: 'Change the line named in the message instead.',
    retry: false,
    http: 409,
    exit: EXIT.refused,
  },
  'ssh-failed': {
    summary: 'The node could not be reached by SSH',
    hint: 'Check that it is powered on and that sshd runs; the server keeps trying until the deadline.',
    retry: true,
    http: 502,
    exit: EXIT.failed,
  },
  'timed-out': {
    summary: 'It took longer than allowed',
    hint: 'Look at `halligan node why NAME` for what it was waiting for.',
    retry: true,
    http: 504,
    exit: EXIT.timedOut,
  },
  'token-refused': {
    summary: 'The one-time token is wrong, used or expired',
    hint: 'Boot the node again; a second use of a token may mean that somebody else poses as this node.',
    retry: false,
    http: 403,
    exit: EXIT.refused,
  },
  'too-many-clients': {
    summary: 'Too many clients follow at the same time',
    hint: 'Close some (`halligan event follow`, consoles, browser tabs), then try again.',
    retry: true,
    http: 503,
    exit: EXIT.failed,
  },
} as const satisfies Record<string, CatalogueEntry>;

export type ProblemCode = keyof typeof PROBLEMS;

/** An expected failure, as a value: safe to store, to send over the API and to show. Holds no secrets. */
export interface Problem {
  readonly code: ProblemCode;
  /** One sentence that names the thing and the reason. */
  readonly message: string;
  /** What to do next; the catalogue's hint unless something better is known. */
  readonly hint: string;
  readonly retry: boolean;
  /** Machine-readable particulars, e.g. {line: 12, field: 'networks[0].cidr'}. */
  readonly detail?: Readonly<Record<string, unknown>>;
}

/** Makes a problem of the catalogue. `message` names the thing and the reason in one sentence. */
export function problem(
  code: ProblemCode,
  message: string,
  extra: { hint?: string; retry?: boolean; detail?: Record<string, unknown> } = {},
): Problem {
  const entry = PROBLEMS[code];
  return {
    code,
    message,
    hint: extra.hint ?? entry.hint,
    retry: extra.retry ?? entry.retry,
    ...(extra.detail ? { detail: extra.detail } : {}),
  };
}

/** Carries a problem through code that cannot return it as a value. */
export class ProblemError extends Error {
  readonly problem: Problem;
  constructor(p: Problem, options?: ErrorOptions) {
    super(p.message, options);
    this.name = 'ProblemError';
    this.problem = p;
  }
}

/** Throws a problem. */
export function fail(...args: Parameters<typeof problem>): never {
  throw new ProblemError(problem(...args));
}

/** Any thrown thing as a problem; what is not one of ours becomes `fallback`. */
export function asProblem(error: unknown, fallback: ProblemCode = 'conflict'): Problem {
  if (error instanceof ProblemError) return error.problem;
  return problem(fallback, error instanceof Error ? error.message : String(error));
}
