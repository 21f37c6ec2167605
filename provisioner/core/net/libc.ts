/** The few calls of libc that Node does not offer: sockets bound to a device, and raw link-layer frames. */
import koffi from 'koffi';

/** Linux numbers (asm-generic/socket.h, linux/if_ether.h, linux/if_packet.h). */
export const LINUX = {
  AF_INET: 2,
  AF_PACKET: 17,
  SOCK_DGRAM: 2,
  SOCK_RAW: 3,
  SOCK_CLOEXEC: 0o2000000,
  SOL_SOCKET: 1,
  SO_REUSEADDR: 2,
  SO_BROADCAST: 6,
  SO_RCVBUF: 8,
  SO_BINDTODEVICE: 25,
  SO_RCVBUFFORCE: 33,
  MSG_DONTWAIT: 0x40,
  ETH_P_IPV6: 0x86dd,
} as const;

export interface Libc {
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Buffer, length: number): number;
  setsockopt(fd: number, level: number, option: number, value: Buffer, length: number): number;
  sendto(fd: number, data: Buffer, length: number, flags: number, address: Buffer, addressLength: number): number;
  close(fd: number): number;
  /** 0 when there is no such interface. */
  interfaceIndex(name: string): number;
  /** The error of the call just made, as Node names it: `EADDRINUSE`. */
  lastError(): string;
}

export function loadLibc(): Libc {
  const lib = koffi.load('libc.so.6');
  const names = new Map(Object.entries(koffi.os.errno).map(([name, number]) => [number as number, name]));
  return {
    socket: lib.func('int socket(int domain, int type, int protocol)'),
    bind: lib.func('int bind(int fd, const void *address, uint32_t length)'),
    setsockopt: lib.func('int setsockopt(int fd, int level, int option, const void *value, uint32_t length)'),
    sendto: lib.func(
      'intptr_t sendto(int fd, const void *data, size_t length, int flags, const void *address, uint32_t addressLength)',
    ),
    close: lib.func('int close(int fd)'),
    interfaceIndex: lib.func('unsigned int if_nametoindex(const char *name)'),
    lastError: () => names.get(koffi.errno()) ?? `errno ${koffi.errno()}`,
  };
}
