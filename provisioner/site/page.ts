/** docs/site.md, written from the schema; a test holds the file to it (`npx vitest run -u` writes it anew). */
import { stringify } from 'yaml';
import { expectation } from '../core/schema/explain.js';
import { SiteSchema } from './schema.js';

export interface FieldShape {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly examples?: readonly unknown[];
  readonly enum?: readonly string[];
  readonly const?: unknown;
  readonly properties?: Readonly<Record<string, FieldShape>>;
  readonly required?: readonly string[];
  readonly items?: FieldShape;
}

export interface DocumentedField {
  /** `networks[].pool.from` */
  readonly path: string;
  readonly schema: FieldShape;
  readonly required: boolean;
}

/** Every field of the site file, groups before their members, in the order of the schema. */
export function siteFields(schema: FieldShape = SiteSchema as unknown as FieldShape, path = ''): DocumentedField[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, field]) => {
    const here = path ? `${path}.${name}` : name;
    const own = {
      path: here,
      schema: field,
      required: (schema.required ?? []).includes(name) && field.default === undefined,
    };
    if (field.properties) return [own, ...siteFields(field, here)];
    if (field.items?.properties) return [own, ...siteFields(field.items, `${here}[]`)];
    return [own];
  });
}

const inline = (value: unknown) =>
  stringify(value, { collectionStyle: 'flow', flowCollectionPadding: false, lineWidth: 0 }).trim();

/** How files are made of parts; what the fields cannot say. */
const WRITING = [
  '## Several files',
  '',
  '`include: [racks/r1.yaml]` adds files. Each is a mapping with the same fields; it may include others. Lists (`nodes`,',
  '`networks`, …) are joined in the order of the includes, mappings field by field; any other value may stand once, and a',
  'second one is a fault with both places. Paths are relative to the file that names them and stay below the folder of the',
  'site file, links included. Circles and files that are named twice are faults. `version` stands in the site file alone.',
  'In the names of fields the numbers of lists count over all files; the place is that of the file itself.',
  '',
  '## Variables',
  '',
  '```yaml',
  'vars: { rack: r1, bmc_net: 10.98.0 }',
  'nodes:',
  `  - name: \${rack}-n01`,
  `    bmc: { driver: ipmi, address: "\${bmc_net}.7", user: halligan, password: "secret:bmc/\${rack}" }`,
  '```',
  '',
  `\`\${name}\` in any text stands for the value; nothing is computed, and no environment is read. Inside of \`{ }\` and \`[ ]\` YAML`,
  `needs quotes around it. A text that is one variable and nothing else gets the variable's type. \`$\${\` is \`\${\` itself, which`,
  'shell in `user_data` needs. Variables may be made of others. An unknown one is a fault, at its very place.',
  '',
  '## Secrets',
  '',
  'The file holds no secret, only where one is: `secret:NAME` (stored by `halligan secret set NAME < FILE`, encrypted in the',
  'database), `file:/PATH` or `env:NAME` of the server. A password in its place is refused, with the command that stores it,',
  'and is never shown; so is one in a variable whose name says that it is one.',
  '',
  '## Versions',
  '',
  '`version` numbers the format, now 2. Older files are read as they were meant; `halligan site migrate FILE` shows what would',
  'change, and with `--write` changes it; the old file stays as `FILE.v1`. Comments, order and quoting stay.',
  '',
  '| from | to | what changes |',
  '|---|---|---|',
  `| 1 | 2 | A text that contains \`\${\` and means just that is written \`$\${\`. New: \`include\`, \`vars\`, \`layouts\`, \`profiles\`, \`racks\`. |`,
  '',
];

export function sitePage(): string {
  const sections = siteFields().map(({ path, schema, required }) => {
    const group = schema.properties !== undefined || schema.items?.properties !== undefined;
    const facts = [
      required ? 'Required.' : null,
      group ? null : `Expected: ${expectation(schema)}.`,
      schema.default !== undefined && !schema.properties ? `Default: \`${inline(schema.default)}\`.` : null,
      !group && schema.examples?.[0] !== undefined
        ? `Example: \`${inline(schema.examples[0]).replaceAll('\n', ' ')}\`.`
        : null,
    ].filter(Boolean);
    return [`### ${path}`, '', schema.description ?? '', '', ...(facts.length > 0 ? [facts.join(' '), ''] : [])].join(
      '\n',
    );
  });
  return [
    '# The site file',
    '',
    'One YAML file (or several that it includes) declares a datacenter: its networks, its machines, what they get, and what',
    'machines become that nobody named ([profiles](profiles.md)). `halligan site check FILE` reads it and tells every fault at',
    'once, with file, line and column, what was expected and what stands there:',
    '',
    '```',
    'site.yaml:12:11: networks[0].cidr: expected an IPv4 subnet like 10.99.0.0/24, found "10.99.0/24"',
    '```',
    '',
    'What the file names, it owns: the API and the command line change only what it leaves open, and refuse the rest with the',
    "file's line. What the file leaves open, or no longer says, stays as it was set. `halligan site export` writes the whole as a",
    'file again. `example-site.yaml` beside this page is one to start from. This page is generated from',
    '`provisioner/site/schema.ts`.',
    '',
    'Checked beyond the single fields: subnets do not overlap; the pool, the gateway and our own address lie inside the subnet,',
    'the last two outside the pool; addresses of nodes lie inside a network, outside every pool, and belong to one node; names,',
    'MACs, UUIDs, serial numbers and BMCs are unique; ipmi and redfish have address, user and password; a VLAN runs on an',
    'interface of the same list; mdraid has two disks; SSH keys are whole; user-data is YAML. In the cloud part: subnets are the',
    'same or apart; the pool of floating IPs lies inside its subnet and nothing else has its addresses; the physical network is',
    'one of `provider`; networks have names and segments of their own; routers, routes and ports lie inside their subnets;',
    'disks are named where nodes with the role volume or storage need them; flavors are unique. Profiles name',
    'layouts that are there, one place for a number in `node_name`, bounds the right way round, and at least one rule with',
    '`auto_claim`; two profiles do not count addresses from one `first_address`; no two nodes stand in one rack unit.',
    '',
    '`cloud: {}` and roles on nodes are a whole cloud: Debian 12 with OpenStack Zed on the network that nodes boot from, geneve',
    'between the hypervisors, four flavors, a dashboard, no floating IPs and no volumes.',
    '',
    ...WRITING,
    '## Fields',
    '',
    ...sections,
  ].join('\n');
}
