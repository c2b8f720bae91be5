// Goal: addresses are checked once, where they enter, and have one spelling afterwards.
// Method: examples from the RFCs, and properties over random addresses.
import fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ipv4, ipv6, macAddress, solicitedNodeGroup } from '../../firmware/addresses.ts'

const test = suite('addresses')

test('a MAC address has one spelling', () => {
  assert.is(macAddress('02-00-5E-10-0A-ff'), '02:00:5e:10:0a:ff')
})

for (const text of [
  '',
  '02:00:5e:10:0a',
  '02:00:5e:10:0a:ff:00',
  '02:00:5e:10:0a:fg',
  '2:0:5e:1:a:f',
])
  test(`"${text}" is no MAC address`, () => {
    assert.throws(() => macAddress(text), /not a MAC address/)
  })

for (const text of ['01:00:5e:00:00:01', '33:33:00:00:00:01', 'ff:ff:ff:ff:ff:ff'])
  test(`${text} belongs to a group, not to an interface`, () => {
    assert.throws(() => macAddress(text), /group address/)
  })

test('an IPv4 address is four numbers', () => {
  assert.is(ipv4('10.77.0.1'), '10.77.0.1')
  for (const text of ['10.77.0', '10.77.0.256', '10.77.0.1/24', '010.77.0.1', 'mail.example.org'])
    assert.throws(() => ipv4(text), /not an IPv4 address/, text)
})

test('an IPv6 address is spelled as the kernel does (RFC 5952)', () => {
  assert.is(ipv6('2001:DB8:0:0:0:0:0:1'), '2001:db8::1')
  assert.is(ipv6('fd77:0:0:1:0:0:0:a'), 'fd77:0:0:1::a')
  assert.is(ipv6('::'), '::')
  for (const text of ['fe80::1%eth0', '10.77.0.1', '2001:db8::1::2', '[::1]', ''])
    assert.throws(() => ipv6(text), /not an IPv6 address/, text)
})

test('neighbours are asked for by the last three octets (RFC 4291 §2.7.1)', () => {
  assert.is(solicitedNodeGroup(ipv6('4037::01:800:200e:8c6c')), 'ff02::1:ff0e:8c6c')
  assert.is(solicitedNodeGroup(ipv6('fd77::1')), 'ff02::1:ff00:1')
  assert.is(solicitedNodeGroup(ipv6('::')), 'ff02::1:ff00:0')
  assert.is(solicitedNodeGroup(ipv6('1:2:3:4:5:6:7:8')), 'ff02::1:ff07:8')
  assert.is(solicitedNodeGroup(ipv6('fd77::a:b:c0')), 'ff02::1:ff0b:c0')
})

test('the group of any address ends in the last three octets of that address', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(0xffff), { minLength: 8, maxLength: 8 }), (words) => {
      const group = solicitedNodeGroup(ipv6(words.map((word) => word.toString(16)).join(':')))
      const [sixth = 0, seventh = 0] = words.slice(6)
      const high = (0xff00 | (sixth & 0xff)).toString(16)
      assert.is(group, ipv6(`ff02:0:0:0:0:1:${high}:${seventh.toString(16)}`))
    }),
  )
})

test('spelling an address again changes nothing', () => {
  fc.assert(fc.property(fc.ipV6(), (text) => assert.is(ipv6(ipv6(text)), ipv6(text))))
})

test.run()
