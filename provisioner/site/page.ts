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
    'One YAML file declares a datacenter: its networks, its machines, what they get. `halligan site check FILE` reads it and',
    'tells every fault at once, with its line, what was expected and what stands there:',
    '',
    '```',
    'site.yaml:12: networks[0].cidr: expected an IPv4 subnet like 10.99.0.0/24, found "10.99.0/24"',
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
    'disks are named where nodes with the role volume or storage need them; flavors are unique.',
    '',
    '`cloud: {}` and roles on nodes are a whole cloud: Debian 12 with OpenStack Zed on the network that nodes boot from, geneve',
    'between the hypervisors, four flavors, a dashboard, no floating IPs and no volumes.',
    '',
    '## Fields',
    '',
    ...sections,
  ].join('\n');
}
