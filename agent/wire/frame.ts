/** A TCP segment as it was on the wire. */
export type TcpFrame = {
  readonly source: string
  readonly sourcePort: number
  readonly destination: string
  readonly destinationPort: number
  readonly syn: boolean
  readonly ack: boolean
  readonly rst: boolean
  readonly fin: boolean
  readonly seq: number
  /** What was captured of the payload. */
  readonly payload: Buffer
  /** How long the payload really is. */
  readonly payloadBytes: number
}

const ETHERNET_BYTES = 14
const TAG_BYTES = 4
const TAGS_MAX = 2
const IPV4 = 0x0800
const IPV6 = 0x86dd
const TAGS: readonly number[] = [0x8100, 0x88a8]
const TCP = 6
const IPV6_BYTES = 40
const TCP_BYTES = 20
const TCP_CHECKSUM_AT = 16
/** Extension headers that may stand between IPv6 and TCP (RFC 8200 §4.1): hop-by-hop, routing, destination options. */
const EXTENSIONS: readonly number[] = [0, 43, 60]
const EXTENSIONS_MAX = 4

type Layers = {
  readonly addresses: { readonly at: number; readonly bytes: 4 | 16 }
  readonly tcpAt: number
  readonly tcpBytes: number
}

/** Finds the TCP segment in an Ethernet frame; `undefined` for anything else, fragments included. */
function layersOf(frame: Buffer): Layers | undefined {
  if (frame.length < ETHERNET_BYTES + TCP_BYTES) return undefined
  let at = ETHERNET_BYTES
  let type = frame.readUInt16BE(at - 2)
  for (let tags = 0; TAGS.includes(type) && tags < TAGS_MAX; tags += 1) {
    at += TAG_BYTES
    type = frame.readUInt16BE(at - 2)
  }
  if (type === IPV4) return ipv4Layers(frame, at)
  return type === IPV6 ? ipv6Layers(frame, at) : undefined
}

function ipv4Layers(frame: Buffer, at: number): Layers | undefined {
  if (frame.length < at + 20 + TCP_BYTES || frame[at + 9] !== TCP) return undefined
  const fragment = frame.readUInt16BE(at + 6) & 0x3fff
  const headerBytes = (frame.readUInt8(at) & 0x0f) * 4
  const tcpBytes = frame.readUInt16BE(at + 2) - headerBytes
  if (fragment !== 0 || frame.length < at + headerBytes + TCP_BYTES) return undefined
  return { addresses: { at: at + 12, bytes: 4 }, tcpAt: at + headerBytes, tcpBytes }
}

function ipv6Layers(frame: Buffer, at: number): Layers | undefined {
  if (frame.length < at + IPV6_BYTES + TCP_BYTES) return undefined
  const end = at + IPV6_BYTES + frame.readUInt16BE(at + 4)
  let next = frame.readUInt8(at + 6)
  let tcpAt = at + IPV6_BYTES
  for (let count = 0; EXTENSIONS.includes(next) && count < EXTENSIONS_MAX; count += 1) {
    if (frame.length < tcpAt + 8) return undefined
    next = frame.readUInt8(tcpAt)
    tcpAt += (frame.readUInt8(tcpAt + 1) + 1) * 8
  }
  if (next !== TCP || frame.length < tcpAt + TCP_BYTES) return undefined
  return { addresses: { at: at + 8, bytes: 16 }, tcpAt, tcpBytes: end - tcpAt }
}

const addressText = (frame: Buffer, at: number, bytes: 4 | 16): string =>
  bytes === 4
    ? `${frame[at]}.${frame[at + 1]}.${frame[at + 2]}.${frame[at + 3]}`
    : ipv6Text(frame, at)

/** As the kernel prints it: the first of the longest runs of zeros is left out (RFC 5952 §4.2). */
function ipv6Text(frame: Buffer, at: number): string {
  let [longest, longestFrom, run] = [1, 8, 0]
  const words: string[] = []
  for (let word = 0; word < 8; word += 1) {
    const value = frame.readUInt16BE(at + 2 * word)
    words.push(value.toString(16))
    run = value === 0 ? run + 1 : 0
    if (run > longest) [longest, longestFrom] = [run, word - run + 1]
  }
  if (longestFrom === 8) return words.join(':')
  const [head, tail] = [words.slice(0, longestFrom), words.slice(longestFrom + longest)]
  return `${head.join(':')}::${tail.join(':')}`
}

/** The MAC address that sent an Ethernet frame. */
export const sourceMacOf = (frame: Buffer): string =>
  frame.toString('hex', 6, 12).replace(/..(?=.)/g, '$&:')

/** Reads an Ethernet frame (RFC 9293 §3.1, RFC 791, RFC 8200, 802.1Q); `undefined` when it carries no whole TCP header. */
export function tcpFrameOf(frame: Buffer): TcpFrame | undefined {
  const layers = layersOf(frame)
  if (layers === undefined) return undefined
  const { addresses, tcpAt, tcpBytes } = layers
  const flags = frame.readUInt8(tcpAt + 13)
  const headerBytes = (frame.readUInt8(tcpAt + 12) >> 4) * 4
  const payloadBytes = Math.max(0, tcpBytes - headerBytes)
  return {
    source: addressText(frame, addresses.at, addresses.bytes),
    sourcePort: frame.readUInt16BE(tcpAt),
    destination: addressText(frame, addresses.at + addresses.bytes, addresses.bytes),
    destinationPort: frame.readUInt16BE(tcpAt + 2),
    syn: (flags & 0x02) !== 0,
    ack: (flags & 0x10) !== 0,
    rst: (flags & 0x04) !== 0,
    fin: (flags & 0x01) !== 0,
    seq: frame.readUInt32BE(tcpAt + 4),
    payload: frame.subarray(tcpAt + headerBytes, tcpAt + headerBytes + payloadBytes),
    payloadBytes,
  }
}

/**
 * The same frame with its TCP checksum made right: a frame captured on its way to a card that computes checksums
 * itself carries half of one. `undefined` when the frame was cut short. RFC 9293 §3.1
 */
export function withChecksum(frame: Buffer): Buffer | undefined {
  const layers = layersOf(frame)
  if (layers === undefined || frame.length < layers.tcpAt + layers.tcpBytes) return undefined
  const { addresses, tcpAt, tcpBytes } = layers
  const copy = Buffer.from(frame.subarray(0, tcpAt + tcpBytes))
  copy.writeUInt16BE(0, tcpAt + TCP_CHECKSUM_AT)
  const pseudo = copy.subarray(addresses.at, addresses.at + 2 * addresses.bytes)
  let sum = TCP + tcpBytes + sumOf(pseudo) + sumOf(copy.subarray(tcpAt))
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  copy.writeUInt16BE(~sum & 0xffff, tcpAt + TCP_CHECKSUM_AT)
  return copy
}

const sumOf = (bytes: Buffer): number => {
  let sum = 0
  for (let at = 0; at < bytes.length; at += 2) sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)
  return sum
}
