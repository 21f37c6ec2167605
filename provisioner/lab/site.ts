/** The site file of a lab. */
import { stringify } from 'yaml';
import { uplinkSocket } from './plan.js';
import type { Lab } from './types.js';

/** The text of a `site.yaml` that serves this lab from inside its namespace. */
export function labSite(lab: Lab): string {
  const site = {
    version: 2,
    name: lab.name,
    data_dir: lab.dataDir,
    api: { port: 7480 },
    networks: [
      {
        name: 'boot',
        cidr: lab.cidr,
        interface: lab.bridge,
        pool: { from: '10.99.0.100', to: '10.99.0.149' },
      },
    ],
    packages: { uplink: `unix:${uplinkSocket(lab)}` },
    install: { login: 'ubuntu', ssh_keys: [...lab.sshKeys] },
    ...(lab.siteNodes && lab.nodes.length > 0
      ? {
          nodes: lab.nodes.map(node => ({
            name: node.name,
            macs: [...node.macs],
            uuid: node.uuid,
            serial: node.serial,
            bmc: {
              driver: node.bmc.driver,
              address: node.bmc.address,
              user: lab.bmcUser,
              password: `file:${lab.bmcPasswordFile}`,
              ...(node.bmc.driver === 'redfish' && lab.tlsFingerprint ? { tls_fingerprint: lab.tlsFingerprint } : {}),
            },
          })),
        }
      : {}),
  };
  const head =
    `# Written by \`halligan lab up\` for the lab "${lab.name}".\n` +
    `# Serve it from inside its network: ip netns exec ${lab.netns} halligan serve --site ${lab.dir}/site.yaml\n`;
  return head + stringify(site, { lineWidth: 0 });
}
