/** The virtual lab, for the command line, the demo and tests. */
export { chooseAccel, findKernel, probeKvm } from './kvm.js';
export { labSite } from './site.js';
export type * from './types.js';
export { findLab, labCommand, labCpuSeconds, labDown, labPower, labStatus, labUp } from './up.js';
