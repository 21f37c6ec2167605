/** What a folder of `roles/` declares. Declarations are data and pure functions; they know nothing of sockets. */
import type { TemplateValues } from '../../provisioner/core/render.js';
import type { DesiredObject } from '../objects/types.js';
import type { CloudModel, CloudNode } from './cloud.js';
import type { CloudMemory } from './memory.js';
import type { Resource } from './resources.js';
import type { CloudSettings } from './settings.js';

export interface DatabaseDeclaration {
  readonly name: string;
  /** Account of MariaDB; its password is the secret `database/USER`. */
  readonly user: string;
}

export interface EndpointDeclaration {
  /** Type of the service in Keystone's catalogue, e.g. `compute` (service-types.openstack.org). */
  readonly type: string;
  /** Name of the service in the catalogue, e.g. `nova`. */
  readonly name: string;
  readonly port: number;
  /** After the port, e.g. `/v2.1`; Keystone's `%(project_id)s` is kept. */
  readonly path: string;
}

/** What a service may ask about the world while it says what it wants; all of it is fixed before. */
export interface ServiceContext {
  readonly cloud: CloudModel;
  readonly node: CloudNode;
  /** Package and unit names and differences of this service in the cloud's release. */
  readonly release: ServiceRelease;
  /**
   * The secret of this name, made at the first use and stored sealed. `password` (40 of A-Z a-z 0-9) unless another
   * kind is named; `fernet`: 32 bytes, URL-safe base64; `uuid`: version 4; `ceph`: a cephx key; `hex`: 64 hex digits; `ssh`: an ed25519 private
   * key as OpenSSH has it.
   */
  secret(name: string, kind?: SecretKind): string;
  /** The CA of the site and this node's certificate (names and all its addresses; server and client), PEM. */
  readonly tls: { readonly ca: string; readonly certificate: string; readonly key: string };
  /** Renders `files/PATH` of the service's folder; PATH ends in `.GRAMMAR.hbs`. */
  template(path: string, values: TemplateValues): string;
}

export type SecretKind = 'password' | 'fernet' | 'uuid' | 'ceph' | 'hex' | 'ssh';

/** The part of a release's data file that is about one service. */
export interface ServiceRelease {
  readonly packages: readonly string[];
  /** Lines for debconf-set-selections(1). */
  readonly preseed: readonly string[];
  /** Names of units by what they do, e.g. `{api: 'keystone.service'}`; the keys are the same in all releases. */
  readonly units: Readonly<Record<string, string>>;
  /** Units of the packages that must never run. */
  readonly mask: readonly string[];
  /** How the API is run. */
  readonly wsgi: 'uwsgi' | 'apache' | 'eventlet' | null;
  /** Differences of configuration, e.g. `{project_networks_option: 'tenant_network_types'}`. */
  readonly options: Readonly<Record<string, string | number | boolean>>;
}

export interface ServiceDeclaration {
  /** Also the name of its folder: `compute-control`. */
  readonly name: string;
  readonly title: string;
  /** What it does, one sentence for operators. */
  readonly sentence: string;
  /** Services that must be somewhere in the cloud. */
  readonly needs: readonly string[];
  /** Whether the site's settings want it; where not, it is as if no role had it. Without this field: always. */
  readonly wanted?: (settings: CloudSettings) => boolean;
  /** Networks of `cloud.networks` that its nodes must be on, beside that for management. */
  readonly networks?: readonly ('tunnel' | 'storage')[];
  /** Why the cloud, as the site wants it, cannot work, a sentence; null when it can. */
  readonly refusal?: (cloud: CloudModel) => string | null;
  /**
   * What is on the first node that got it and nowhere else, e.g. `the databases`; null: nothing. Another node would begin
   * with nothing, and everybody would be sent there: so the service does not leave that node while there is a cloud.
   */
  readonly firstAlone?: (settings: CloudSettings) => string | null;
  /** What further applies must know of this one; the cloud's memory holds what earlier ones left. Pure. */
  readonly remember?: (cloud: CloudModel) => CloudMemory;
  readonly databases?: readonly DatabaseDeclaration[];
  /** Account of Keystone in the project `service` with the roles `admin` and `service`; its password is the secret `identity/USER`. */
  readonly user?: string;
  /** Account of RabbitMQ; its password is the secret `messaging/USER`. */
  readonly messagingUser?: string;
  readonly endpoints?: readonly EndpointDeclaration[];
  /** Pure: the same context gives the same resources. */
  readonly build: (context: ServiceContext) => readonly Resource[];
  /** Objects behind the APIs (flavors, networks, volume types) that belong to this service; once for the cloud. Users, services and endpoints follow from the fields above. */
  readonly objects?: (cloud: CloudModel) => readonly DesiredObject[];
}

export interface RoleDeclaration {
  readonly name: string;
  readonly title: string;
  readonly sentence: string;
  readonly services: readonly string[];
  /** Least and most nodes with this role, each with the sentence that an operator reads when it is not met. */
  readonly limits: readonly { readonly least?: number; readonly most?: number; readonly sentence: string }[];
  /** Roles that must be on some node. */
  readonly needs: readonly { readonly role: string; readonly sentence: string }[];
  /** Roles that may not be on the same node. */
  readonly conflicts: readonly { readonly role: string; readonly sentence: string }[];
}

export interface Catalogue {
  readonly services: ReadonlyMap<string, ServiceDeclaration>;
  readonly roles: ReadonlyMap<string, RoleDeclaration>;
}
