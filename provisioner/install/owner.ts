/** How a disk says whose it is: the GPT name of the partition that holds the system. */

/** First 8 hex digits of a node's id. */
export function ownerTag(nodeId: string): string {
  const hex = nodeId.replaceAll('-', '').toLowerCase();
  if (!/^[0-9a-f]{8,}$/.test(hex)) throw new Error(`not a node id: ${nodeId}`);
  return hex.slice(0, 8);
}

/** PARTLABEL of root partitions, physical volumes and RAID members that we made. */
export const ownerLabel = (nodeId: string): string => `halligan-${ownerTag(nodeId)}`;
