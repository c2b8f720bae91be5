// Goal: what tcpdump writes is read right, whatever the chunks, and a SYN can be sent again with a right checksum.
// Method: frames are built by hand; checksums are checked by the rule that the whole sums to all ones.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { sourceMacOf, tcpFrameOf, withChecksum } from '../../agent/wire/frame.ts'
import { NotPcap, PcapReader } from '../../agent/wire/pcap.ts'
import { ipv6 as canonical } from '../../firmware/addresses.ts'

const test = suite('frames')

const MACS = '027700000002' + '027700000010'
const TCP = 'b20a008f' + '000000ff' + '00000000' // 45578 → 143, seq 255
const tcp = (flags: string, payload = '') => `${TCP}50${flags}faf0deaf0000${payload}`
const ipv4 = (segment: string) => {
  const total = (20 + segment.length / 2).toString(16).padStart(4, '0')
  return `0800${'4500'}${total}00004000${'4006'}00000a4d000a0a4d0002${segment}`
}
const ipv6 = (segment: string, next = '06') => {
  const length = (segment.length / 2).toString(16).padStart(4, '0')
  const [from, to] = [`fd77${'0'.repeat(26)}10`, `fd77${'0'.repeat(26)}02`]
  return `86dd60000000${length}${next}40${from}${to}${segment}`
}
const frame = (rest: string) => Buffer.from(MACS + rest, 'hex')

test('a segment over IPv4 is read', () => {
  const read = tcpFrameOf(frame(ipv4(tcp('18', '6869'))))
  assert.equal(read, {
    source: '10.77.0.10',
    sourcePort: 45578,
    destination: '10.77.0.2',
    destinationPort: 143,
    syn: false,
    ack: true,
    rst: false,
    fin: false,
    seq: 255,
    payload: Buffer.from('hi'),
    payloadBytes: 2,
  })
})

test('a segment over IPv6 is read, with and without extension headers', () => {
  const plain = tcpFrameOf(frame(ipv6(tcp('14'))))
  assert.is(plain?.source, 'fd77::10')
  assert.is(plain?.destination, 'fd77::2')
  assert.ok(plain?.rst && plain.ack)
  const hopByHop = `0600${'000000000000'}`
  const extended = tcpFrameOf(frame(ipv6(hopByHop + tcp('02', '41'), '00')))
  assert.ok(extended?.syn)
  assert.is(extended?.payloadBytes, 1)
})

test('IPv6 addresses are written as everybody else writes them', () => {
  for (const words of [
    [0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 1],
    [0xfe80, 0, 0, 0, 0, 0, 0, 0],
    [1, 0, 0, 2, 0, 0, 3, 4],
    [1, 0, 2, 3, 4, 5, 6, 7],
    [1, 2, 3, 4, 5, 6, 7, 8],
    [0x2001, 0xdb8, 0, 0, 0, 0xff, 0, 0],
  ]) {
    const hex = words.map((word) => word.toString(16).padStart(4, '0')).join('')
    const whole = ipv6(tcp('02')).replace(`fd77${'0'.repeat(26)}10`, hex)
    const text = canonical(words.map((word) => word.toString(16)).join(':'))
    assert.is(tcpFrameOf(frame(whole))?.source, text)
  }
})

test('the sender of a frame is read', () => {
  assert.is(sourceMacOf(frame(ipv4(tcp('02')))), '02:77:00:00:00:10')
})

test('a tagged frame is read like an untagged one', () => {
  assert.is(tcpFrameOf(frame(`81000014${ipv4(tcp('02'))}`))?.destinationPort, 143)
  assert.is(tcpFrameOf(frame(`88a8000181000014${ipv6(tcp('02'))}`))?.destinationPort, 143)
})

test('the padding of a short frame is not payload, and a cut frame keeps its true length', () => {
  const padded = Buffer.concat([frame(ipv4(tcp('10'))), Buffer.alloc(6)])
  assert.is(tcpFrameOf(padded)?.payloadBytes, 0)
  assert.is(tcpFrameOf(padded)?.payload.length, 0)
  const whole = frame(ipv4(tcp('18', '41'.repeat(100))))
  const cut = tcpFrameOf(whole.subarray(0, 80))
  assert.is(cut?.payloadBytes, 100)
  assert.is(cut?.payload.length, 80 - 54)
})

test('what is not a whole TCP header is passed over', () => {
  for (const hex of [
    '',
    ipv4(tcp('02')).replace('4006', '4011'),
    ipv4(tcp('02')).replace('00004000', '00002000'),
    ipv4(tcp('02')).slice(0, 60),
    ipv6(tcp('02'), '3a'),
    `0806${'00'.repeat(60)}`,
  ])
    assert.is(tcpFrameOf(frame(hex)), undefined, hex)
})

test('any bytes at all are read without an error', () => {
  for (let round = 0; round < 2_000; round += 1) {
    const bytes = Buffer.from(
      Array.from({ length: round % 90 }, (_, at) => (round * 31 + at * 7) % 256),
    )
    tcpFrameOf(bytes)
    tcpFrameOf(Buffer.concat([frame(round % 2 ? '0800' : '86dd'), bytes]))
    withChecksum(Buffer.concat([frame(round % 2 ? '0800' : '86dd'), bytes]))
  }
})

const wholeSum = (bytes: Buffer, addressesAt: number, addressBytes: number, tcpAt: number) => {
  const segment = bytes.subarray(tcpAt)
  const all = Buffer.concat([bytes.subarray(addressesAt, addressesAt + 2 * addressBytes), segment])
  let sum = 6 + segment.length
  for (let at = 0; at < all.length; at += 2) sum += ((all[at] ?? 0) << 8) + (all[at + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return sum
}

test('a checksum that a card would have finished is made right, in both families', () => {
  const four = withChecksum(Buffer.concat([frame(ipv4(tcp('02', '414243'))), Buffer.alloc(3)]))
  assert.ok(four)
  assert.is(four && wholeSum(four, 26, 4, 34), 0xffff)
  const six = withChecksum(frame(ipv6(tcp('02'))))
  assert.is(six && wholeSum(six, 22, 16, 54), 0xffff)
  assert.is(withChecksum(frame(ipv4(tcp('18', '4141'))).subarray(0, 55)), undefined)
})

const HEADER = Buffer.from('d4c3b2a1020004000000000000000000' + '00020000' + '01000000', 'hex')
const recorded = (bytes: Buffer) => {
  const header = Buffer.alloc(16)
  header.writeUInt32LE(bytes.length, 8)
  header.writeUInt32LE(bytes.length + 10, 12)
  return Buffer.concat([header, bytes])
}

test('a capture is cut into frames whatever the chunks', () => {
  const frames = ['one', 'two', '', 'a longer frame'].map((text) => Buffer.from(text))
  const stream = Buffer.concat([HEADER, ...frames.map(recorded)])
  for (let size = 1; size <= stream.length; size += 1) {
    const reader = new PcapReader()
    const read: string[] = []
    for (let at = 0; at < stream.length; at += size)
      for (const bytes of reader.push(stream.subarray(at, at + size))) read.push(bytes.toString())
    assert.equal(read, frames.map(String), `chunks of ${size}`)
  }
})

test('a stream that is no capture of Ethernet is refused', () => {
  assert.throws(
    () => new PcapReader().push(Buffer.alloc(24)),
    (error: Error) => error instanceof NotPcap,
  )
  const wifi = Buffer.from(HEADER)
  wifi.writeUInt32LE(105, 20)
  assert.throws(() => new PcapReader().push(wifi), /not Ethernet/)
  const reader = new PcapReader()
  reader.push(HEADER)
  assert.throws(() => reader.push(Buffer.alloc(16, 0xff)), /a frame of/)
})

test.run()
