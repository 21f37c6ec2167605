/**
 * Under which names a cloud knows a node. Nova calls it by `host` of its configuration, the hypervisor and Placement by
 * the machine's full name, Cinder adds backend and pool (`vol@ceph#ceph`), OVN keeps both a name and a host name. All of
 * them begin with the node's name, which is unique in the site.
 */
export const shortName = (host: string): string => host.split('@')[0]!.split('.')[0]!.toLowerCase();

/** Whether a record's host is this node, by its short or by any full name. */
export const hostIs =
  (node: string) =>
  (host: string): boolean =>
    host !== '' && shortName(host) === node.toLowerCase();
