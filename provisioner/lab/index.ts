/** The virtual lab, for the command line, the demo and tests. */
export { hostNetns, hostPower, startHost, stopHost } from './container.js';
export { chooseAccel, findKernel, probeKvm } from './kvm.js';
export { diskSerial } from './plan.js';
export { labRootfs } from './rootfs.js';
export { labSite } from './site.js';
export type * from './types.js';
export { findLab, labCommand, labCpuSeconds, labDown, labPower, labStatus, labUp } from './up.js';
