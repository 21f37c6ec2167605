/** Sockets that belong to one interface. Node's dgram cannot bind to a device, so libc makes them and dgram takes over. */
import { createSocket, type Socket } from 'node:dgram';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { fail } from '../problem.js';
import { parseIpv4 } from './ipv4.js';
import { LINUX, type Libc, loadLibc } from './libc.js';
import { routerAdvertisementFrame } from './router-advertisement.js';

export interface UdpOptions {
  /** Receives and sends on this interface only (SO_BINDTODEVICE). */
  device?: string;
  /** Local address; any by default. */
  address?: string;
  port: number;
  /** Accept that another socket has the same port (SO_REUSEADDR before bind); otherwise that is `port-in-use`. */
  share?: boolean;
  /** Bytes; the kernel may grant less. */
  receiveBuffer?: number;
}

/** Which program holds a UDP port, as far as /proc tells: `dnsmasq, pid 123`. */
function holderOfUdpPort(port: number): string | undefined {
  try {
    const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
    const inodes = new Set<string>();
    for (const line of readFileSync('/proc/net/udp', 'utf8').split('\n').slice(1)) {
      const fields = line.trim().split(/\s+/);
      if (fields[1]?.endsWith(suffix)) inodes.add(`socket:[${fields[9]}]`);
    }
    for (const pid of readdirSync('/proc').filter(name => /^\d+$/.test(name))) {
      let fds: string[] = [];
      try {
        fds = readdirSync(`/proc/${pid}/fd`);
      } catch {
        continue; // ended meanwhile, or not ours to see
      }
      for (const fd of fds) {
        try {
          if (inodes.has(readlinkSync(`/proc/${pid}/fd/${fd}`)))
            return `${readFileSync(`/proc/${pid}/comm`, 'utf8').trim()}, pid ${pid}`;
        } catch {
          // closed meanwhile
        }
      }
    }
  } catch {
    // no /proc: the sentence does without
  }
  return undefined;
}

function socketFailed(
  code: string,
  what: string,
  options: { device?: string; address?: string; port?: number },
): never {
  const detail = { ...options, errno: code };
  const where = [options.address, options.device && `interface ${options.device}`].filter(Boolean).join(' on ');
  const on = where ? ` on ${where}` : '';
  switch (code) {
    case 'EADDRINUSE': {
      const holder = holderOfUdpPort(options.port ?? 0);
      return fail('port-in-use', `UDP port ${options.port}${on} is already in use${holder ? ` by ${holder}` : ''}.`, {
        detail,
      });
    }
    case 'EACCES':
    case 'EPERM':
      return what === 'bind'
        ? fail(
            'capability-missing',
            `UDP port ${options.port}${on} may not be opened: CAP_NET_BIND_SERVICE is missing.`,
            { detail },
          )
        : fail('capability-missing', `A ${what} socket${on} may not be opened: CAP_NET_RAW is missing.`, { detail });
    case 'ENODEV':
      return fail('interface-missing', `There is no network interface ${options.device}.`, { detail });
    case 'EADDRNOTAVAIL':
      return fail('interface-missing', `No interface of this machine has the address ${options.address}.`, { detail });
    default:
      throw new Error(`UDP port ${options.port}${on}: ${what} failed with ${code}`);
  }
}

const int = (value: number): Buffer => {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32LE(value);
  return buffer;
};

function bindToDevice(libc: Libc, fd: number, device: string, what: string): void {
  const name = Buffer.from(`${device}\0`);
  if (libc.setsockopt(fd, LINUX.SOL_SOCKET, LINUX.SO_BINDTODEVICE, name, name.length) !== 0)
    socketFailed(libc.lastError(), what, { device });
}

/**
 * A bound UDP socket that may send broadcasts.
 * @throws ProblemError port-in-use, capability-missing, interface-missing
 */
export async function bindUdp(options: UdpOptions): Promise<Socket> {
  const libc = loadLibc();
  const fd = libc.socket(LINUX.AF_INET, LINUX.SOCK_DGRAM | LINUX.SOCK_CLOEXEC, 0);
  if (fd < 0) socketFailed(libc.lastError(), 'UDP', options);
  try {
    const set = (option: number, value: number) => libc.setsockopt(fd, LINUX.SOL_SOCKET, option, int(value), 4);
    set(LINUX.SO_BROADCAST, 1);
    // Beyond net.core.rmem_max only with CAP_NET_ADMIN; without it the kernel grants what it may.
    if (options.receiveBuffer && set(LINUX.SO_RCVBUFFORCE, options.receiveBuffer) !== 0)
      set(LINUX.SO_RCVBUF, options.receiveBuffer);
    if (options.device) bindToDevice(libc, fd, options.device, 'device-bound');
    if (options.share) set(LINUX.SO_REUSEADDR, 1);
    const address = Buffer.alloc(16); // struct sockaddr_in
    address.writeUInt16LE(LINUX.AF_INET, 0);
    address.writeUInt16BE(options.port, 2);
    address.writeUInt32BE(options.address ? parseIpv4(options.address) : 0, 4);
    if (libc.bind(fd, address, address.length) !== 0) socketFailed(libc.lastError(), 'bind', options);
    // Set after the bind: our own socket for relays (all interfaces, same port) may follow, while a foreign server on
    // this interface was noticed by the bind.
    set(LINUX.SO_REUSEADDR, 1);
    const socket = createSocket('udp4');
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.bind({ fd }, () => {
        socket.off('error', reject);
        resolve();
      });
    });
    return socket;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/**
 * A function that gives the kernel's number of an interface; 0 when there is none of that name. One that is made anew
 * has another number.
 */
export const interfaceIndexes = (): ((device: string) => number) => loadLibc().interfaceIndex;

export interface RouterAdvertiser {
  /** Sends one advertisement to the client with this Ethernet address. Returns undefined, or the error's name. */
  send(clientMac: string): string | undefined;
  close(): void;
}

/**
 * A sender of router advertisements on one interface; it never receives.
 * @throws ProblemError capability-missing, interface-missing
 */
export function openRouterAdvertiser(device: string): RouterAdvertiser {
  const libc = loadLibc();
  if (libc.interfaceIndex(device) === 0) socketFailed('ENODEV', 'packet', { device });
  // Protocol 0: the socket gets no frames, so nothing queues up on it.
  const fd = libc.socket(LINUX.AF_PACKET, LINUX.SOCK_RAW | LINUX.SOCK_CLOEXEC, 0);
  if (fd < 0) socketFailed(libc.lastError(), 'packet', { device });
  let open = true;
  return {
    send(clientMac) {
      if (!open) return 'EBADF';
      const own = interfaceMac(device);
      const index = libc.interfaceIndex(device);
      if (!own || index === 0) return 'ENODEV';
      const frame = routerAdvertisementFrame(own, clientMac);
      const address = Buffer.alloc(20); // struct sockaddr_ll
      address.writeUInt16LE(LINUX.AF_PACKET, 0);
      address.writeUInt16BE(LINUX.ETH_P_IPV6, 2);
      address.writeInt32LE(index, 4);
      address[11] = 6;
      frame.copy(address, 12, 0, 6);
      const sent = libc.sendto(fd, frame, frame.length, LINUX.MSG_DONTWAIT, address, address.length);
      return sent === frame.length ? undefined : libc.lastError();
    },
    close() {
      if (open) libc.close(fd);
      open = false;
    },
  };
}

/** The Ethernet address of an interface that has an IP address, lower case with colons; undefined when it is gone. */
export function interfaceMac(device: string): string | undefined {
  // Not from /sys: that shows the interfaces of the namespace it was mounted in.
  const mac = networkInterfaces()[device]?.[0]?.mac;
  return mac === undefined || mac === '00:00:00:00:00:00' ? undefined : mac;
}
