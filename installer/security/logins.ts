/** Names and passwords that everybody tries first: defaults of packages, of guides and of other installers. */

export interface Login {
  readonly user: string;
  readonly password: string;
}

const ADMIN = ['admin', 'password', 'secret', 'openstack', 'changeme', 'nomoresecret', 'ADMIN_PASS'];

/** For Keystone: its administrator, and the accounts of the services. */
export const keystoneLogins = (serviceUsers: readonly string[]): Login[] => [
  ...ADMIN.map(password => ({ user: 'admin', password })),
  ...serviceUsers.flatMap(user => [user, 'password'].map(password => ({ user, password }))),
  { user: 'demo', password: 'demo' },
  { user: 'demo', password: 'secret' },
];

export const DASHBOARD_LOGINS: readonly Login[] = [
  { user: 'admin', password: 'admin' },
  { user: 'admin', password: 'password' },
  { user: 'crowbar', password: 'crowbar' },
];

export const MESSAGING_LOGINS: readonly Login[] = [
  { user: 'guest', password: 'guest' },
  { user: 'admin', password: 'admin' },
  { user: 'rabbitmq', password: 'rabbitmq' },
  { user: 'openstack', password: 'openstack' },
  { user: 'openstack', password: 'RABBIT_PASS' },
  { user: 'stackrabbit', password: 'secret' },
];

export const databaseLogins = (accounts: readonly string[]): Login[] => [
  ...['', 'root', 'password', 'secret', 'mysql'].map(password => ({ user: 'root', password })),
  { user: '', password: '' },
  { user: 'admin', password: 'admin' },
  ...accounts.flatMap(user => ['', user, `${user.toUpperCase()}_DBPASS`].map(password => ({ user, password }))),
];
