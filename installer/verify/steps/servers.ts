/** A server on each compute, and what its guest says on its console. */
import { asProblem } from '../../../provisioner/core/problem.js';
import { at, isObject, items, text } from '../../openstack/json.js';
import { type ConsoleFacts, isOwnMetadata, readCloudInit, readMarkers } from '../console-log.js';
import { broken, call, made, type TestServer, until, untilStatus, type VerifyContext } from '../context.js';
import { passed, type Step, type StepControl, skipped } from '../runner.js';
import { sweep } from '../sweep.js';
import { sweepAway } from './prepare.js';

/** What to look at, by what Nova says. Pure. */
export function serverHint(reason: string, host: string): string {
  if (/no valid host|no allocation candidates|exceeded maximum number of retries/i.test(reason))
    return 'No compute takes it: look at nova-scheduler’s log, and at what Placement has left (`openstack resource provider inventory list`): memory, vCPUs and disk must suffice for the flavor.';
  if (/virtual interface|vif|port binding|binding failed/i.test(reason))
    return `Neutron did not plug the port: look at ovn-controller (or the agent) on ${host || 'the compute'} and at neutron-server’s log; does the host’s name there match Nova’s?`;
  if (/image|disk_format|qemu-img/i.test(reason))
    return 'The image does not suit: look at nova-compute’s log; the format given to Glance must be what the file is.';
  return `Look at nova-compute’s log on ${host || 'the compute'}.`;
}

const faultReason = (server: unknown): string => text(server, 'fault', 'message').slice(0, 300);

/** The fixed address on the run's network. */
function addressOf(server: unknown): string {
  const nets = at(server, 'addresses');
  for (const list of Object.values(isObject(nets) ? nets : {}))
    for (const entry of items({ list }, 'list'))
      if (entry['OS-EXT-IPS:type'] !== 'floating' && entry['version'] === 4) return text(entry, 'addr');
  return '';
}

/** Orders a server and waits until it is ACTIVE. `host`: chosen by the administrator; otherwise the plain user's wish is enough. */
export async function bootServer(
  context: VerifyContext,
  control: StepControl,
  wanted: {
    readonly letter: string;
    readonly host?: string;
    readonly image?: string;
    readonly volume?: string;
  },
): Promise<TestServer> {
  const { host } = wanted;
  const client = made(context, host === undefined ? 'user' : 'operator');
  const name = `${context.run}-${wanted.letter}`;
  const { body } = await call(
    client,
    control,
    'compute',
    'POST',
    '/servers',
    {
      server: {
        name,
        flavorRef: made(context, 'flavor'),
        ...(wanted.image === undefined ? {} : { imageRef: wanted.image }),
        ...(wanted.volume === undefined
          ? {}
          : {
              block_device_mapping_v2: [
                {
                  boot_index: 0,
                  uuid: wanted.volume,
                  source_type: 'volume',
                  destination_type: 'volume',
                  delete_on_termination: false,
                },
              ],
            }),
        networks: [{ uuid: made(context, 'network').id }],
        security_groups: [{ name: made(context, 'group') }],
        key_name: made(context, 'key').name,
        ...(host === undefined ? {} : { host }),
      },
    },
    // From 2.74 on an administrator may name the host and the scheduler still checks it.
    { microversion: host === undefined ? '2.37' : '2.74' },
  );
  const id = text(body, 'server', 'id');
  context.scope.servers.add(id);
  context.scope.ids.add(id);
  const server = await untilActive(context, control, id, name);
  const at = text(server, 'OS-EXT-SRV-ATTR:host');
  if (host !== undefined && at !== host) broken(`Server ${name} was to run on ${host}; Nova put it on ${at}.`);
  const address = addressOf(server);
  if (!address) broken(`Server ${name} is ACTIVE without an address on its network.`);
  return { id, name, letter: wanted.letter, host: at, address };
}

/** Asks as the administrator, who sees the host and the whole fault. */
export async function untilActive(
  context: VerifyContext,
  control: StepControl,
  id: string,
  name: string,
): Promise<unknown> {
  let host = '';
  return untilStatus(context, made(context, 'operator'), control, {
    service: 'compute',
    path: `/servers/${id}`,
    key: 'server',
    title: `server ${name}`,
    good: ['ACTIVE'],
    reason: server => {
      host = text(server, 'OS-EXT-SRV-ATTR:host');
      const reason = faultReason(server);
      // The hint depends on what Nova says.
      return broken(
        `Server ${name} went into state ERROR${host ? ` on ${host}` : ''}: ${reason || 'Nova gives no reason'}.`,
        serverHint(reason, host),
      );
    },
  });
}

export async function readConsole(
  context: VerifyContext,
  control: Pick<StepControl, 'signal' | 'timeoutFactor'>,
  server: TestServer,
): Promise<ConsoleFacts> {
  const reply = await call(
    made(context, 'user'),
    control,
    'compute',
    'POST',
    `/servers/${server.id}/action`,
    { 'os-getConsoleOutput': {} },
    // 404: the console has no log yet; 409: the server is between two states.
    { accept: [404, 409] },
  );
  const log = text(reply.body, 'output');
  return context.spec.guest.tells === 'markers'
    ? readMarkers(log)
    : readCloudInit(log, { address: server.address, name: server.name });
}

/** Waits until the guest says it is ready, and takes its host key from what it said. */
export async function untilReady(context: VerifyContext, control: StepControl, server: TestServer): Promise<void> {
  await until(context, control, async () => {
    const facts = await readConsole(context, control, server);
    if (facts.hostKey) server.hostKey = facts.hostKey;
    if (facts.ready) return { done: undefined };
    return { waitingFor: `the guest of ${server.name} to be ready; its last words: ${facts.tail || '(none)'}` };
  });
}

/** Letters of the servers, one per compute; two on the only one. */
export function placement(computes: readonly string[], most: number): { letter: string; host: string }[] {
  const hosts = computes.slice(0, Math.max(1, most));
  const chosen = hosts.length === 1 ? [hosts[0]!, hosts[0]!] : hosts;
  return chosen.map((host, i) => ({
    letter: String.fromCharCode(97 + (i % 26)) + (i < 26 ? '' : Math.floor(i / 26)),
    host,
  }));
}

/** Servers that there are at the same time, one per compute. */
export const BATCH = 8;
const BATCH_MS = 400_000;

export const servers: Step<VerifyContext> = {
  name: 'servers',
  title: 'A server on each compute, up to a batch of them',
  needs: ['compute-services', 'network-agents', 'image', 'flavor', 'keypair', 'network', 'security-group'],
  expectedSeconds: 15,
  timeoutSeconds: 300,
  hint: 'Look at nova-scheduler’s log on the controller and at nova-compute’s on the host.',
  run: async (context, control) => {
    const computes = made(context, 'computes');
    if (computes.length === 0) broken('No compute is up and enabled.');
    const most = context.spec.maxComputes ?? BATCH;
    context.made.servers = await Promise.all(
      placement(computes, most).map(({ letter, host }) =>
        bootServer(context, control, { letter, host, image: made(context, 'image') }),
      ),
    );
    return passed({ servers: context.made.servers.map(s => `${s.name} on ${s.host}: ${s.address}`) });
  },
  undo: sweepAway('server'),
};

/** The guest has the address and the MTU that Neutron gave it. */
async function untilLeased(context: VerifyContext, control: StepControl, server: TestServer): Promise<string> {
  const { mtu } = made(context, 'network');
  return until(context, control, async () => {
    const facts = await readConsole(context, control, server);
    if (facts.dhcp === 'failed')
      return broken(`The guest of ${server.name} on ${server.host} asked for an address in vain.`);
    if (!facts.dhcp)
      return {
        waitingFor: `the guest of ${server.name} on ${server.host} to get an address; its last words: ${facts.tail || '(none)'}`,
      };
    if (facts.dhcp.address !== server.address)
      return broken(`The guest of ${server.name} got ${facts.dhcp.address}, Neutron gave it ${server.address}.`);
    if (mtu > 0 && facts.dhcp.mtu !== null && facts.dhcp.mtu !== mtu)
      return broken(`The guest of ${server.name} was told an MTU of ${facts.dhcp.mtu}; the network has ${mtu}.`);
    return { done: `${server.name}: ${facts.dhcp.address}${facts.dhcp.mtu ? `, MTU ${facts.dhcp.mtu}` : ''}` };
  });
}

/** The guest has read its own metadata, and was given the public key. */
async function untilOwnMetadata(context: VerifyContext, control: StepControl, server: TestServer): Promise<string> {
  const { body } = await call(made(context, 'operator'), control, 'compute', 'GET', `/servers/${server.id}`);
  const instanceName = text(body, 'server', 'OS-EXT-SRV-ATTR:instance_name');
  return until(context, control, async () => {
    const facts = await readConsole(context, control, server);
    const said = facts.metadata;
    if (said && 'failed' in said)
      return broken(`The guest of ${server.name} on ${server.host} got no metadata: ${said.failed}.`);
    if (said && isOwnMetadata(said, { id: server.id, name: server.name, instanceName })) {
      if (facts.keyBytes === 0) return broken(`The guest of ${server.name} was given no public key.`);
      if (facts.keyBytes !== null || facts.ready) return { done: `${server.name}: ${said.instance || said.hostname}` };
    } else if (facts.ready)
      // A guest that is ready says no more.
      return broken(
        said && (said.hostname || said.instance)
          ? `The guest of ${server.name} read the metadata of another: host name ${said.hostname}, instance ${said.instance}.`
          : `The guest of ${server.name} on ${server.host} got no answer from 169.254.169.254.`,
      );
    return {
      waitingFor: `the guest of ${server.name} to read its metadata; its last words: ${facts.tail || '(none)'}`,
    };
  });
}

export const dhcp: Step<VerifyContext> = {
  name: 'dhcp',
  title: 'Guests get their address by DHCP',
  needs: ['servers'],
  expectedSeconds: 15,
  timeoutSeconds: 120,
  hint: 'Is the guest running (`openstack console log show`)? If it asks in vain: ovn-controller on its compute, or Neutron’s DHCP agent, does not answer.',
  run: async (context, control) => {
    const leases = await Promise.all(made(context, 'servers').map(server => untilLeased(context, control, server)));
    return passed({ leases });
  },
};

export const metadata: Step<VerifyContext> = {
  name: 'metadata',
  title: 'Guests read their own metadata',
  needs: ['dhcp'],
  expectedSeconds: 2,
  timeoutSeconds: 120,
  hint: 'Look at the metadata agent on the compute (neutron-ovn-metadata-agent.log) and at nova’s metadata API; both must share metadata_proxy_shared_secret.',
  run: async (context, control) => {
    const read = await Promise.all(made(context, 'servers').map(server => untilOwnMetadata(context, control, server)));
    return passed({ read });
  },
};

export const guestReady: Step<VerifyContext> = {
  name: 'guest-ready',
  title: 'Guests are up and show their SSH host key',
  needs: ['metadata'],
  expectedSeconds: 3,
  timeoutSeconds: 180,
  hint: 'Read the console: `openstack console log show NAME`. The image must be the guest that the site names.',
  run: async (context, control) => {
    await Promise.all(made(context, 'servers').map(server => untilReady(context, control, server)));
    const mute = made(context, 'servers').filter(server => !server.hostKey);
    if (mute.length > 0)
      broken(`The guest of ${mute.map(s => s.name).join(', ')} is ready but showed no SSH host key on its console.`);
    return passed();
  },
};

export const otherComputes: Step<VerifyContext> = {
  name: 'other-computes',
  title: 'A server on each of the other computes: address, metadata, ready',
  needs: ['guest-ready'],
  // What works in the first guests is not disturbed by many more that start.
  after: ['boot-from-volume', 'volume-snapshot', 'server-image', 'live-migrate'],
  expectedSeconds: 40,
  timeoutSeconds: 3600,
  hint: 'Look at nova-compute’s log on the computes named, and at ovn-controller’s.',
  run: async (context, control) => {
    const most = Math.max(1, context.spec.maxComputes ?? BATCH);
    const others = made(context, 'computes').slice(most);
    if (others.length === 0) return skipped('Every compute has a server already.');
    const faults: string[] = [];
    for (let first = 0; first < others.length; first += most) {
      const batch = others.slice(first, first + most);
      // One host that hangs must not cost the others their turn.
      const deadline = AbortSignal.timeout(BATCH_MS * control.timeoutFactor);
      const signal = AbortSignal.any([control.signal, deadline]);
      const ended = await Promise.all(
        batch.map(async (host, i) => {
          let waiting = '';
          const mine: StepControl = {
            ...control,
            signal,
            waitingFor: what => {
              waiting = what;
              control.waitingFor(what);
            },
          };
          try {
            const server = await bootServer(context, mine, {
              letter: `other-${first + i + 1}`,
              host,
              image: made(context, 'image'),
            });
            await untilLeased(context, mine, server);
            await untilOwnMetadata(context, mine, server);
            await untilReady(context, mine, server);
            return undefined;
          } catch (error) {
            control.signal.throwIfAborted();
            return `${host}: ${deadline.aborted ? `still waiting for ${waiting}` : asProblem(error, 'cloud-verify-failed').message}`;
          }
        }),
      );
      faults.push(...ended.filter(fault => fault !== undefined));
      control.waitingFor(`the servers on ${batch.join(', ')} to be deleted`);
      const left = await sweep(context.scope, ['server'], control.signal, isOther);
      if (left.length > 0) broken(`Not deleted: ${left.join('; ')}`);
    }
    if (faults.length > 0) broken(`${faults.length} of ${others.length} computes are not well: ${faults.join('; ')}`);
    return passed({ computes: others });
  },
  undo: async (context, control) => {
    const left = await sweep(context.scope, ['server'], control.signal, isOther);
    if (left.length > 0) broken(`Not deleted: ${left.join('; ')}`);
  },
};

const isOther = (found: { readonly name: string }): boolean => /-other-\d+$/.test(found.name);
