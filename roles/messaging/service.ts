import { createHash } from 'node:crypto';
import type { ServiceContext, ServiceDeclaration } from '../../installer/model/catalogue.js';
import { directory, file, packages, type Resource, unit } from '../../installer/model/resources.js';
import { CA_FILE, CA_SOURCE, certificate, dropIn, listening, unitName } from '../shared.js';

/**
 * RabbitMQ's own form: base64 of the salt and SHA-256 of salt and password. So the broker gets its accounts from a file
 * at its start; rabbitmqctl would cost two seconds per call and the password as an argument.
 * https://www.rabbitmq.com/docs/passwords
 */
export function passwordHash(saltHex: string, password: string): string {
  const salt = Buffer.from(saltHex.slice(0, 8), 'hex');
  const hash = createHash('sha256').update(salt).update(password, 'utf8').digest();
  return Buffer.concat([salt, hash]).toString('base64');
}

function build(ctx: ServiceContext): readonly Resource[] {
  const tls = certificate(ctx, '/etc/rabbitmq/ssl', 'rabbitmq');
  const accounts = ctx.cloud.services.flatMap(s => s.messagingUser ?? []);
  const config = (path: string, content: string) => file({ path, content, group: 'rabbitmq', mode: 0o640 });
  const names = ['rabbitmq.conf', 'rabbitmq-env.conf', 'definitions.json', 'enabled_plugins'] as const;
  const epmd = unitName(ctx, 'port_mapper_socket');
  return [
    packages(ctx.release.packages, { preseed: ctx.release.preseed }),
    file({
      path: dropIn(epmd),
      content: '# Written by Halligan.\n[Socket]\nListenStream=\nListenStream=127.0.0.1:4369\n',
    }),
    unit({ unit: epmd, watches: [dropIn(epmd)], ready: listening('127.0.0.1', 4369) }),
    directory({ path: '/etc/rabbitmq', group: 'rabbitmq', mode: 0o750 }),
    ...tls.resources,
    config(
      '/etc/rabbitmq/rabbitmq.conf',
      ctx.template('etc/rabbitmq/rabbitmq.conf.hbs', {
        address: ctx.node.address,
        ca_file: CA_FILE,
        certificate: tls.certificate,
        key: tls.key,
      }),
    ),
    config('/etc/rabbitmq/rabbitmq-env.conf', ctx.template('etc/rabbitmq/rabbitmq-env.conf.hbs', {})),
    config(
      '/etc/rabbitmq/definitions.json',
      ctx.template('etc/rabbitmq/definitions.json.hbs', {
        users: accounts.map(name => ({
          name,
          password_hash: passwordHash(ctx.secret('messaging/salt', 'hex'), ctx.secret(`messaging/${name}`)),
          hashing_algorithm: 'rabbit_password_hashing_sha256',
          tags: '',
        })),
        permissions: accounts.map(user => ({ user, vhost: '/', configure: '.*', write: '.*', read: '.*' })),
      }),
    ),
    config('/etc/rabbitmq/enabled_plugins', '[].\n'),
    // A baked image has one that all nodes share.
    file({
      path: '/var/lib/rabbitmq/.erlang.cookie',
      content: ctx.secret('messaging/erlang-cookie'),
      owner: 'rabbitmq',
      group: 'rabbitmq',
      mode: 0o400,
    }),
    unit({
      unit: unitName(ctx, 'broker'),
      watches: [
        ...names.map(n => `/etc/rabbitmq/${n}`),
        '/var/lib/rabbitmq/.erlang.cookie',
        CA_SOURCE,
        tls.certificate,
        tls.key,
      ],
      ready: listening(ctx.node.address, 5671),
      expectedSeconds: 8,
      interrupts: 'Requests to the APIs wait while messaging restarts; servers, networks and volumes go on.',
      provides: ['messaging:ready'],
    }),
  ];
}

export const service: ServiceDeclaration = {
  name: 'messaging',
  title: 'Messaging',
  sentence: 'RabbitMQ, over which the services of Nova, Neutron and Cinder talk to each other.',
  needs: [],
  build,
};
