/** The routes that the product serves by TFTP. */
import type { Loaders } from '../boot/loaders.js';
import type { TftpRoute } from './types.js';

/** A table of buffers by name; also finds a name behind folders that firmware or DHCP settings put in front. */
export function tableRoute(name: string, table: ReadonlyMap<string, { readonly data: Buffer }>): TftpRoute {
  return {
    name,
    find({ file }) {
      const entry = table.get(file) ?? table.get(file.slice(file.lastIndexOf('/') + 1));
      return entry ? { kind: 'buffer', data: entry.data } : null;
    },
  };
}

/** undionly.kpxe, snponly.efi, ipxe.efi. */
export const loaderRoute = (loaders: Loaders): TftpRoute => tableRoute('loader', loaders);
