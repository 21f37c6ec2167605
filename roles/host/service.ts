import { createHash } from 'node:crypto';
import { ARCHIVES_FILE, archivesText } from '../../installer/model/archives.js';
import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { nodesWith } from '../../installer/model/cloud.js';
import { command, directory, file, packages, type Resource, unit } from '../../installer/model/resources.js';
import { formatIpv4, parseCidr } from '../../provisioner/core/net/ipv4.js';
import { CA_FILE, CA_SOURCE, option, unitName } from '../shared.js';

/** Those whom the other nodes ask for the time. */
const timeServers = (ctx: ServiceContext) => nodesWith(ctx.cloud, 'database');

/** A container shares its machine's clock and cannot set it. */
const keepsTime = (ctx: ServiceContext): boolean => !ctx.node.facts.container;

/** A container may not change kernel settings of its machine. */
const setsKernel = (ctx: ServiceContext): boolean => !ctx.node.facts.container;

/** `10.99.0.0/24` around the address of each node, each once: nodes may be in several subnets. */
function subnets({ cloud }: ServiceContext): readonly string[] {
  const found = cloud.nodes.map(({ address, facts }) => {
    const own = facts.interfaces.flatMap(i => i.addresses).find(a => a.startsWith(`${address}/`));
    const cidr = parseCidr(own ?? `${address}/32`);
    return `${formatIpv4(cidr.base)}/${cidr.prefix}`;
  });
  return [...new Set(found)].sort();
}

function clock(ctx: ServiceContext): readonly Resource[] {
  if (!keepsTime(ctx)) return [];
  const serves = timeServers(ctx).some(n => n.name === ctx.node.name);
  const sources = serves ? ctx.cloud.settings.ntp : timeServers(ctx).map(n => n.address);
  return [
    file({
      path: '/etc/chrony/chrony.conf',
      content: ctx.template('etc/chrony/chrony.conf.hbs', {
        sources: sources.map(address => ({ address })),
        serves,
        allow: subnets(ctx).map(network => ({ network })),
      }),
    }),
    unit({ unit: unitName(ctx, 'time'), watches: ['/etc/chrony/chrony.conf'], ready: 'chronyc -n tracking' }),
  ];
}

/** systemd gives a unit 90 s to start; an emulated machine takes longer for some that load much Python. */
function slowStarts({ node }: ServiceContext): readonly Resource[] {
  if (!node.facts.emulated) return [];
  return [
    directory({ path: '/etc/systemd/system.conf.d' }),
    file({
      path: '/etc/systemd/system.conf.d/halligan.conf',
      content: '# Written by Halligan: the CPUs of this machine are emulated.\n[Manager]\nDefaultTimeoutStartSec=900\n',
    }),
    command({
      name: 'slow-starts',
      title: 'Give units the time to start that an emulated machine takes',
      check: '[ "$(systemctl show -p DefaultTimeoutStartUSec --value)" = 15min ]',
      apply: 'systemctl daemon-reload',
    }),
  ];
}

/** What answers on all addresses of a node besides sshd; and sshd itself takes keys only. */
function hardening(): readonly Resource[] {
  const resolved = '/etc/systemd/resolved.conf.d/halligan.conf';
  const folder = '/etc/ssh/sshd_config.d';
  const sshd = `${folder}/00-halligan.conf`;
  const lines = ['passwordauthentication no', 'kbdinteractiveauthentication no'];
  const says = `[ "$(sshd -T | grep -cxE '${lines.join('|')}')" = ${lines.length} ]`;
  return [
    directory({ path: '/etc/systemd/resolved.conf.d' }),
    file({
      path: resolved,
      content: '# Written by Halligan: nodes are found by /etc/hosts and DNS.\n[Resolve]\nLLMNR=no\nMulticastDNS=no\n',
    }),
    command({
      name: 'no-llmnr',
      title: 'Answer no questions of neighbours for names (LLMNR)',
      check: "! ss -Hln 'sport = :5355' | grep -q .",
      apply: 'systemctl try-restart systemd-resolved.service',
    }),
    file({
      path: sshd,
      content:
        '# Written by Halligan. Keys only; the first value counts, and cloud-init has 50-cloud-init.conf.\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n',
    }),
    command({
      name: 'ssh-keys-only',
      title: 'Let nobody log in over SSH by password',
      // What counts is what sshd makes of all its files; as root, for whoever comes from wherever.
      check: `${says} && ! grep -qs '^# Written by Halligan' ${folder}/60-halligan.conf`,
      stamp: 'keys-only-00',
      apply: `! grep -qs '^# Written by Halligan' ${folder}/60-halligan.conf || rm -f ${folder}/60-halligan.conf
sshd -t
${says} || { echo 'sshd still takes passwords: /etc/ssh/sshd_config must begin with "Include ${folder}/*.conf".'; exit 1; }
systemctl try-reload-or-restart ssh.service`,
      interrupts: 'Who logs in over SSH by password needs a key from then on; sessions that are open stay.',
    }),
  ];
}

/**
 * What update-ca-certificates(8) does, for one certificate more: link, link by its hash, end of the bundle. It reads all 140
 * anew, some thousand processes, while every other step of a new node waits. Where ours was there before, or somebody hooks
 * in (Java), it runs itself.
 */
const TRUST = `cd /etc/ssl/certs
if [ ! -s ca-certificates.crt ] || [ -L ${CA_FILE} ] || [ -n "$(ls -A /etc/ca-certificates/update.d 2>/dev/null)" ]; then
  exec update-ca-certificates
fi
hash=$(openssl x509 -noout -subject_hash -in ${CA_SOURCE})
n=0
while [ -e "$hash.$n" ]; do n=$((n + 1)); done
sed -e '$a\\' ca-certificates.crt ${CA_SOURCE} >ca-certificates.crt.new
chmod 0644 ca-certificates.crt.new
mv -f ca-certificates.crt.new ca-certificates.crt
ln -sf "$(basename ${CA_FILE})" "$hash.$n"
ln -sf ${CA_SOURCE} ${CA_FILE}`;

function build(ctx: ServiceContext): readonly Resource[] {
  const { cloud, node } = ctx;
  const known = new Set([cloud.api.address, ...cloud.nodes.flatMap(n => [n.name, n.fqdn])]);
  const apiName = known.has(cloud.api.host) ? null : cloud.api.host;
  return [
    packages([...ctx.release.packages, ...(keepsTime(ctx) ? [option(ctx, 'time_package')] : [])], {
      preseed: ctx.release.preseed,
    }),
    // The packages came from there already; where the site says where they come from, that names these archives too.
    ...(cloud.settings.packages === null && cloud.release.archives.length > 0
      ? [file({ path: ARCHIVES_FILE, content: archivesText(cloud.release.archives) })]
      : []),
    ...slowStarts(ctx),
    directory({ path: '/var/lib/halligan', mode: 0o755 }),
    command({
      name: 'hostname',
      title: `Set the hostname to ${node.name}`,
      check: `[ "$(hostname)" = ${node.name} ] && [ "$(cat /etc/hostname)" = ${node.name} ]`,
      apply: `echo ${node.name} >/etc/hostname\nhostname ${node.name}`,
    }),
    // Its work was done at the first boot. At later ones it would write /etc/hosts and the hostname anew where the host's own
    // configuration says so (adopted hosts; what we install leaves both alone).
    file({
      path: '/etc/cloud/cloud-init.disabled',
      content: '# By Halligan: this node has roles, which keep it as it should be.\n',
    }),
    file({
      path: '/etc/hosts',
      content: ctx.template('etc/hosts.conf.hbs', {
        nodes: cloud.nodes.map(n => ({ address: n.address, fqdn: n.fqdn, name: n.name })),
        api_name: apiName,
        api_address: cloud.api.address,
      }),
    }),
    file({ path: CA_SOURCE, content: ctx.tls.ca }),
    command({
      name: 'trust-store',
      title: "Trust the site's CA",
      check: `[ ${CA_FILE} -ef ${CA_SOURCE} ] && grep -qF "$(sed -n 3p ${CA_SOURCE})" /etc/ssl/certs/ca-certificates.crt`,
      stamp: createHash('sha256').update(ctx.tls.ca).digest('hex').slice(0, 32),
      apply: TRUST,
    }),
    ...(setsKernel(ctx)
      ? [
          file({
            path: '/etc/sysctl.d/60-halligan.conf',
            content: ctx.template('etc/sysctl.d/60-halligan.conf.hbs', {}),
          }),
          unit({ unit: 'systemd-sysctl.service', watches: ['/etc/sysctl.d/60-halligan.conf'] }),
        ]
      : []),
    ...hardening(),
    ...clock(ctx),
    command({
      name: 'ready',
      title: 'Names, trust and time are in place',
      check: `[ "$(getent ahostsv4 ${node.name} | awk '{print $1; exit}')" = ${node.address} ]`,
      apply: `getent ahostsv4 ${node.name}`,
      provides: ['host:ready', `host:ready@${node.name}`],
    }),
  ];
}

export const service: ServiceDeclaration = {
  name: 'host',
  title: 'Host',
  sentence: 'What every node needs: names, the CA of the site, time, kernel settings.',
  needs: [],
  build,
};
