const FILE_HEADER_BYTES = 24
const FRAME_HEADER_BYTES = 16
const MAGIC = 0xa1b2c3d4
const LINK_ETHERNET = 1
/** More than any snapshot length in use: a longer frame means that the stream is not what it should be. */
const FRAME_BYTES_MAX = 262_144

/** A stream that is not a capture of Ethernet frames. */
export class NotPcap extends Error {
  override readonly name = 'NotPcap'
}

/** Cuts a stream of the pcap file format into frames, keeping no more than one unfinished frame. pcap-savefile(5) */
export class PcapReader {
  #rest: Buffer = Buffer.alloc(0)
  #littleEndian: boolean | undefined

  /** Frames that are complete with this chunk. They share the chunk's memory. @throws {NotPcap} */
  push(chunk: Buffer): readonly Buffer[] {
    const data = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    const frames: Buffer[] = []
    let at = this.#littleEndian === undefined ? this.#header(data) : 0
    while (this.#littleEndian !== undefined && data.length - at >= FRAME_HEADER_BYTES) {
      const bytes = this.#number(data, at + 8)
      if (bytes > FRAME_BYTES_MAX) throw new NotPcap(`a frame of ${bytes} bytes`)
      const end = at + FRAME_HEADER_BYTES + bytes
      if (data.length < end) break
      frames.push(data.subarray(at + FRAME_HEADER_BYTES, end))
      at = end
    }
    this.#rest = data.subarray(at)
    return frames
  }

  #number(data: Buffer, at: number): number {
    return this.#littleEndian ? data.readUInt32LE(at) : data.readUInt32BE(at)
  }

  #header(data: Buffer): number {
    if (data.length < FILE_HEADER_BYTES) return 0
    const littleEndian = data.readUInt32LE(0) === MAGIC
    if (!littleEndian && data.readUInt32BE(0) !== MAGIC) throw new NotPcap('no pcap header')
    this.#littleEndian = littleEndian
    if (this.#number(data, 20) !== LINK_ETHERNET) throw new NotPcap('not Ethernet')
    return FILE_HEADER_BYTES
  }
}
