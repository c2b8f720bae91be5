#!/bin/sh
# Brings a Debian 12 or Ubuntu machine to where the demo and every test floor can run. Idempotent; quick when nothing is missing.
set -eu
cd "$(dirname "$0")/.."

packages='nftables iproute2 iputils-arping iputils-ping tcpdump socat util-linux openssl
  dovecot-core dovecot-imapd dovecot-pop3d dovecot-lmtpd postfix mosquitto mosquitto-clients
  isync iperf3 keepalived shellcheck'

missing=''
for package in $packages; do
  dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done

if [ -n "$missing" ]; then
  [ "$(id -u)" = 0 ] || { echo "setup: these Debian packages are missing and only root can install them:$missing" >&2; exit 1; }
  echo "setup: installing$missing"
  # The lab starts its own, privately configured servers: no daemon may start by being installed.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
  fi
  export DEBIAN_FRONTEND=noninteractive
  echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
  apt-get update -qq
  # shellcheck disable=SC2086 # a list of package names
  apt-get install -qq -y --no-install-recommends $missing >/dev/null
  rm -f "$policy"
  trap - EXIT INT TERM
fi

if ! cmp -s package-lock.json node_modules/.understudy-lock 2>/dev/null; then
  echo 'setup: npm ci'
  npm ci --no-audit --no-fund --loglevel=error
  cp package-lock.json node_modules/.understudy-lock
fi
