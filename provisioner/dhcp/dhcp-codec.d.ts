/** The parts of npm `dhcp` (0.2.20, no types of its own) that are used: its wire codec. Its server class never is. */
declare module 'dhcp/lib/protocol.js' {
  interface WireMessage {
    op: number;
    htype: number;
    hlen: number;
    hops: number;
    xid: number;
    secs: number;
    flags: number;
    ciaddr: string;
    yiaddr: string;
    siaddr: string;
    giaddr: string;
    /** `AA-BB-CC-DD-EE-FF` */
    chaddr: string;
    sname: string;
    file: string;
    /** By option code; the shape depends on the registered type. */
    options: Record<number, string | number | boolean | number[] | string[]>;
  }
  const protocol: {
    /** Throws on htype other than 1 and on fewer than 230 bytes; reads past the end of broken options. */
    parse(buffer: Buffer): WireMessage;
    /** `_data` has 1500 bytes, of which `_w` are written. Throws when they do not suffice. */
    format(message: WireMessage): { _data: Buffer; _w: number };
  };
  export default protocol;
}

declare module 'dhcp/lib/options.js' {
  const options: {
    opts: Record<number, { name: string; type: string }>;
    /** Registers an option for the whole process. */
    addOption(code: number, option: { name: string; type: string; attr: string }): void;
  };
  export default options;
}
