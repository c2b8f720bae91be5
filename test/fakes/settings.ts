/** Settings as an administrator writes them: everything that has no default, and nothing else. */
export const leastSettings = () => ({
  production: {
    addresses: [{ ipv4: '10.77.0.10' }],
    hostname: 'mail.example.org',
    domains: ['example.org'],
    services: [
      { port: 143, protocol: 'imap', tls: 'starttls' },
      { port: 25, protocol: 'smtp', tls: 'none' },
    ],
    admin: { user: 'admin', passwordFile: '/etc/understudy/admin.password' },
    tls: { certificateFile: '/etc/understudy/mail.crt', keyFile: '/etc/understudy/mail.key' },
  },
  accounts: { passwdFile: '/etc/understudy/passwd' },
  wire: { management: { mac: '02:00:00:77:00:02', ipv4: 'dhcp' } },
})
