/** The packet codec inside the npm package `tftp`, as far as it is used here. It has no types of its own. */
declare module 'tftp/lib/protocol/packets/index.js' {
  /** Throws plain objects {code, message}, and RangeError on packets that are too short. */
  const packets: {
    rrq: {
      deserialize(buffer: Buffer): {
        file: string;
        extensions: { blksize?: number; tsize?: number; windowsize?: number } | null;
        userExtensions: Record<string, string>;
      };
    };
    oack: { serialize(options: Record<string, number>): Buffer };
    data: { serialize(block: number, data: Buffer): Buffer };
    ack: { serialize(block: number): Buffer; deserialize(buffer: Buffer): { block: number } };
    error: {
      serialize(error: { code: number; message: string }): Buffer;
      deserialize(buffer: Buffer): { code: number; message: string };
    };
  };
  export default packets;
}
