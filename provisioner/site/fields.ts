/** Kinds of fields of the site file: each is JSON Schema with the words that a person reads. */
import { type TObject, type TProperties, Type } from 'typebox';

export const ipv4 = (description: string, example = '10.99.0.1') =>
  Type.String({ format: 'ipv4', examples: [example], description });
export const subnet = (description: string, example = '10.99.0.0/24') =>
  Type.String({ format: 'ipv4-cidr', examples: [example], description });
export const mac = (description: string, example = '52:54:00:99:00:01') =>
  Type.String({ format: 'mac', examples: [example], description });
export const hostName = (description: string, example = 'n07') =>
  Type.String({
    pattern: '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$',
    expects: 'one label of a host name in lower case (letters, digits, inner hyphens; at most 63)',
    examples: [example],
    description,
  });
export const text = (description: string, example: string, maxLength = 256) =>
  Type.String({ minLength: 1, maxLength, examples: [example], description });
export const sshKey = Type.String({
  pattern: '^(ssh-(ed25519|rsa)|ecdsa-sha2-[a-z0-9-]+|sk-[a-z0-9@.-]+) [A-Za-z0-9+/]+={0,3}( .*)?$',
  maxLength: 8192,
  expects: 'an SSH public key on one line',
  examples: ['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0nyfWSbe16+1ZF6fCFD97bSdvYbCjVtcFRoMUqpb40 ops@example'],
  description: 'An SSH public key, as in authorized_keys (without options).',
});
export const secretRef = (description: string, example: string) =>
  Type.String({
    pattern: '^(file:/|env:[A-Za-z_]|secret:[A-Za-z0-9]).*$',
    maxLength: 1024,
    writeOnly: true,
    expects: 'a reference to a secret (file:/PATH, env:NAME or secret:NAME), never the secret itself',
    examples: [example],
    description,
  });
export const userData = (description: string) =>
  Type.String({
    pattern: '^#cloud-config\\s*\\n',
    maxLength: 65_536,
    expects: 'cloud-init user-data whose first line is #cloud-config',
    examples: ['#cloud-config\npackages: [tmux]\n'],
    description,
  });
export const oneOf = <const T extends string[]>(values: readonly [...T], options: Record<string, unknown>) =>
  Type.Enum([...values] as [...T], options);
export const object = <P extends TProperties>(properties: P, description: string): TObject<P> =>
  Type.Object(properties, { additionalProperties: false, description });
/** A group that may be left out: its fields then have their defaults. */
export const group = <P extends TProperties>(properties: P, description: string): TObject<P> =>
  Type.Object(properties, { additionalProperties: false, description, default: {} });

/** How the NICs of a bond share their work. */
export const bondMode = oneOf(['active-backup', '802.3ad', 'balance-xor'], {
  default: 'active-backup',
  description: 'Mode of the bond; 802.3ad needs the switch to speak LACP.',
});

/** A tag on another interface of the same list. */
export const taggedVlan = object(
  {
    id: Type.Integer({ minimum: 1, maximum: 4094, examples: [100], description: 'VLAN tag.' }),
    link: text('Name of the interface it runs on, from this same list.', 'bond0', 15),
  },
  'A tagged VLAN.',
);
