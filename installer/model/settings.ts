/** The `cloud` part of the site file; its fields are explained where its schema is, in provisioner/site. */
export type { CloudSettings, ExternalNetwork, ProviderNetwork } from '../../provisioner/core/cloud-settings.js';
