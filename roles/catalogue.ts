/** All services and roles. The order of services is the order in which a node has them: `host` first. */
import type { Catalogue, RoleDeclaration, ServiceDeclaration } from '../installer/model/catalogue.js';
import { service as cache } from './cache/service.js';
import { role as compute } from './compute/role.js';
import { service as computeControl } from './compute-control/service.js';
import { role as controller } from './controller/role.js';
import { service as dashboard } from './dashboard/service.js';
import { service as database } from './database/service.js';
import { service as host } from './host/service.js';
import { service as hypervisor } from './hypervisor/service.js';
import { service as identity } from './identity/service.js';
import { service as image } from './image/service.js';
import { service as messaging } from './messaging/service.js';
import { role as network } from './network/role.js';
import { service as networkAgent } from './network-agent/service.js';
import { service as networkControl } from './network-control/service.js';
import { service as networkGateway } from './network-gateway/service.js';
import { service as objectProxy } from './object-proxy/service.js';
import { service as objectStore } from './object-store/service.js';
import { service as placement } from './placement/service.js';
import { role as storage } from './storage/role.js';
import { role as volume } from './volume/role.js';
import { service as volumeBackend } from './volume-backend/service.js';
import { service as volumeControl } from './volume-control/service.js';

const services: readonly ServiceDeclaration[] = [
  host,
  database,
  messaging,
  cache,
  identity,
  placement,
  image,
  networkControl,
  computeControl,
  volumeControl,
  networkGateway,
  networkAgent,
  volumeBackend,
  hypervisor,
  objectStore,
  objectProxy,
  dashboard,
];
const roles: readonly RoleDeclaration[] = [controller, compute, network, volume, storage];

export const catalogue: Catalogue = {
  services: new Map(services.map(s => [s.name, s])),
  roles: new Map(roles.map(r => [r.name, r])),
};
