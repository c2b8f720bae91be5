// Programs that run for a moment in another namespace (`node --eval`), as text: on the device everything is one
// bundle, and a process must enter its namespace before Node starts. Plain JavaScript, Node's own modules only.

/** Listens where it is told, hands each listening socket over and waits to be ended. */
export const LISTENER = `
const net = require('node:net')
process.once('message', (all) => all.forEach((where, id) => {
  const server = net.createServer()
  server.once('error', ({ code }) => process.send({ id, error: code }))
  server.listen(where, () => process.send({ id }, server))
}))
process.on('disconnect', () => process.exit())
`

/** Connects as it is told and hands each socket over, unread; ends when nobody listens to it any more. */
export const LEG = `
const net = require('node:net')
process.on('message', ({ id, host, port, localAddress, localPort, timeoutMs }) => {
  const socket = net.connect({ host, port, localAddress, localPort, allowHalfOpen: true })
  const impatient = setTimeout(() => socket.destroy(Object.assign(new Error(), { code: 'ETIMEDOUT' })), timeoutMs)
  socket.once('error', ({ code }) => { clearTimeout(impatient); process.send({ id, error: code }) })
  socket.once('connect', () => {
    clearTimeout(impatient)
    socket.pause()
    socket.removeAllListeners('error')
    socket.on('error', () => {})
    process.send({ id }, socket)
  })
})
process.on('disconnect', () => process.exit())
`
