/** The NoCloud seed of cloud-init: meta-data and user-data. */
import { stringify } from 'yaml';
import { fail } from '../core/problem.js';

export interface SeedIntent {
  /** New for every installation: cloud-init does its once-per-instance work again. */
  readonly instanceId: string;
  readonly hostname: string;
  readonly domain: string;
  readonly login: string;
  /** Public keys for the login user: the server's own, the site's, the node's. */
  readonly keys: readonly string[];
  readonly siteUserData: string | null;
  readonly nodeUserData: string | null;
}

export interface Seed {
  readonly metaData: string;
  readonly userData: string;
}

/** cloud-init's own limit of one file in the clouds; more is no user-data. */
export const MAX_USER_DATA_BYTES = 64 * 1024;
const STARTS = [
  '#cloud-config',
  '#!',
  '#include',
  '#cloud-boothook',
  '#part-handler',
  '## template: jinja',
  'Content-Type:',
  '#cloud-config-archive',
];

/**
 * Several texts in one: `#cloud-config-archive`, ours first. Later parts add to lists and maps; a value that an earlier
 * part has set stays, so that nobody loses the login by accident, and the node's own comes before the site's.
 * https://cloudinit.readthedocs.io/en/22.4.2/topics/merging.html
 */
export function seed(intent: SeedIntent): Seed {
  if (intent.keys.length === 0)
    fail('request-invalid', 'There is no SSH key for the installed system: nobody could log in.');
  for (const key of intent.keys)
    if (!/^(ssh-|ecdsa-|sk-)[A-Za-z0-9@.-]+ [A-Za-z0-9+/=]+( [^\n\r]*)?$/.test(key))
      fail('request-invalid', `This is no public key: ${JSON.stringify(key.slice(0, 60))}.`);
  const base = {
    hostname: intent.hostname,
    fqdn: `${intent.hostname}.${intent.domain}`,
    prefer_fqdn_over_hostname: false,
    // Once, at the first boot: afterwards the file is the operator's, or of the node's roles (roles/host). cloud-init's
    // own management would put 127.0.1.1 back at each boot, and a service bound to its name would be reached by nobody.
    manage_etc_hosts: false,
    write_files: [{ path: '/etc/hosts', content: firstHosts(intent) }],
    ssh_deletekeys: false,
    ssh_genkeytypes: ['ed25519'],
    users: [
      {
        name: intent.login,
        gecos: 'Halligan',
        shell: '/bin/bash',
        groups: ['adm', 'sudo'],
        // A list would work, too, but the schema of cloud-init 22 does not know it.
        sudo: 'ALL=(ALL) NOPASSWD:ALL',
        lock_passwd: true,
        ssh_authorized_keys: [...new Set(intent.keys)],
      },
    ],
  };
  const ours = `#cloud-config\n${stringify(base, { lineWidth: 0 })}`;
  const own = [part(intent.nodeUserData, 'the node'), part(intent.siteUserData, 'the site')].flatMap(text =>
    text === null ? [] : [{ content: text, 'Merge-Type': 'list(append)+dict(no_replace,recurse_list)+str()' }],
  );
  const userData =
    own.length === 0
      ? ours
      : `#cloud-config-archive\n${stringify([{ type: 'text/cloud-config', content: ours }, ...own], { lineWidth: 0 })}`;
  return {
    metaData: stringify({ 'instance-id': intent.instanceId, 'local-hostname': intent.hostname }),
    userData,
  };
}

/** The node's own name resolves without DNS; nothing else is known yet. */
const firstHosts = ({ hostname, domain }: SeedIntent): string => `127.0.0.1 localhost
127.0.1.1 ${hostname}.${domain} ${hostname}
::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
`;

function part(text: string | null, whose: string): string | null {
  if (text === null || text.trim() === '') return null;
  if (Buffer.byteLength(text) > MAX_USER_DATA_BYTES)
    return fail('request-invalid', `The user_data of ${whose} has more than ${MAX_USER_DATA_BYTES} bytes.`);
  if (!STARTS.some(start => text.startsWith(start)))
    return fail(
      'request-invalid',
      `The user_data of ${whose} begins with none of ${STARTS.join(', ')}; cloud-init would ignore it.`,
    );
  return text;
}
