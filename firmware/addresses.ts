import { isIPv4, isIPv6 } from 'node:net'

declare const brand: unique symbol
type Brand<Name extends string> = string & { readonly [brand]: Name }

/** Six octets in lower-case hexadecimal, joined by colons. */
export type MacAddress = Brand<'mac'>
export type Ipv4 = Brand<'ipv4'>
/** In the form the kernel prints (RFC 5952). */
export type Ipv6 = Brand<'ipv6'>

/** @throws {RangeError} */
export const macAddress = (text: string): MacAddress => {
  const mac = text.toLowerCase().replaceAll('-', ':')
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac))
    throw new RangeError(`not a MAC address: ${text}`)
  if ((Number.parseInt(mac.slice(0, 2), 16) & 1) === 1)
    throw new RangeError(`a group address, not one interface's MAC address: ${text}`)
  return mac as MacAddress
}

/** @throws {RangeError} */
export const ipv4 = (text: string): Ipv4 => {
  if (!isIPv4(text)) throw new RangeError(`not an IPv4 address: ${text}`)
  return text as Ipv4
}

/** @throws {RangeError} */
export const ipv6 = (text: string): Ipv6 => {
  if (!isIPv6(text) || text.includes('%')) throw new RangeError(`not an IPv6 address: ${text}`)
  return new URL(`http://[${text}]/`).hostname.slice(1, -1) as Ipv6
}

/** The multicast group to which neighbour solicitations for an address are sent (RFC 4291 §2.7.1). */
export const solicitedNodeGroup = (address: Ipv6): Ipv6 => {
  const groups = expand(address)
  const [high, low] = [groups[6] ?? 0, groups[7] ?? 0]
  return ipv6(`ff02::1:ff${(high & 0xff).toString(16).padStart(2, '0')}:${low.toString(16)}`)
}

const expand = (address: Ipv6): readonly number[] => {
  const [head = '', tail] = address.split('::')
  const words = (part: string | undefined) =>
    part === undefined || part === ''
      ? []
      : part.split(':').map((word) => Number.parseInt(word, 16))
  const [first, last] = [words(head), words(tail)]
  return tail === undefined
    ? first
    : [...first, ...Array<number>(8 - first.length - last.length).fill(0), ...last]
}
