/**
 * Under which names a cloud knows a node. Nova calls it by `host` of its configuration, the hypervisor and Placement by
 * the machine's full name, Cinder adds backend and pool (`vol@ceph#ceph`), OVN keeps both a name and a host name. All of
 * them begin with the node's name, which is unique in the site.
 */
export const shortName = (host: string): string => host.split('@')[0]!.split('.')[0]!.toLowerCase();

/**
 * The same as a condition of SQL.
 * @param node name of a node: letters, digits and hyphens
 */
export function hostIsSql(node: string, column: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9-]*$/.test(node)) throw new Error(`${JSON.stringify(node)} is no name of a node`);
  return `${column} = '${node}' OR ${column} LIKE '${node}.%' OR ${column} LIKE '${node}@%'`;
}

/** Whether a record's host is this node, by its short or by any full name. */
export const hostIs =
  (node: string) =>
  (host: string): boolean =>
    host !== '' && shortName(host) === node.toLowerCase();
