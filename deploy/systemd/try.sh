#!/bin/bash
# Starts the unit under a systemd of its own, in namespaces that end with it, and holds it
# to what docs/operations.md says: that it answers when it is started, reloads, comes back
# after it stood still, does not come back with a faulty configuration, and stops.
#
#   deploy/systemd/try.sh BINARY      as root; the machine's own files are left alone
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

fail() { echo "failed: $*" >&2; exit 1; }

# A machine within the machine: what is written goes into memory and is gone in the end.
boot() {
  local binary=$1 report=$2
  mount --make-rprivate /
  local kept=/mnt
  mount -t tmpfs tmpfs $kept
  cp "$binary" $kept/kms
  cp -r "$here" $kept/systemd
  cp -r "$here/../../config" $kept/config
  # Users and settings of its own above the machine's.
  mkdir $kept/etc $kept/work
  mount -t overlay -o lowerdir=/etc,upperdir=$kept/etc,workdir=$kept/work overlay /etc
  mkdir -p /etc/kms
  # The report goes out; all else that is written ends here.
  touch $kept/report && mount --bind "$report" $kept/report
  for folder in /run /tmp /var/lib /var/log /usr/local/bin; do
    mount -t tmpfs -o mode=0755 tmpfs $folder
  done
  echo 'kms:x:990:' >>/etc/group
  echo 'kms:x:990:990::/var/lib/kms:/usr/sbin/nologin' >>/etc/passwd

  install -m 0755 $kept/kms /usr/local/bin/kms
  install -m 0640 -g kms $kept/config/*.toml /etc/kms/
  (cd /etc/kms && kms dev-pki --out pki >/dev/null)
  chown -R root:kms /etc/kms/pki
  chmod -R g+rX /etc/kms/pki
  sed 's/^export //' /etc/kms/pki/kms.env | grep -v DATA_DIR >/etc/kms/kms.env
  mkdir -p /run/systemd/system/kms.service.d
  cp $kept/systemd/kms.service /run/systemd/system/
  printf '[Service]\nWatchdogSec=3\n' >/run/systemd/system/kms.service.d/soon.conf
  cat >/run/systemd/system/try.service <<UNIT
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/bash $kept/systemd/try.sh --within
StandardOutput=file:$kept/report
StandardError=inherit
ExecStopPost=/bin/systemctl --force exit
UNIT
  export container=namespace
  exec /lib/systemd/systemd --system --unit=try.service --log-level=warning --show-status=no
}

property() { systemctl show kms.service --property "$1" --value; }

is() { [ "$(property "$1")" = "$2" ] || fail "$1 is $(property "$1"), not $2"; }

until_is() {
  for _ in $(seq 300); do
    [ "$(property "$1")" = "$2" ] && return
    sleep 0.1
  done
  is "$1" "$2"
}

within() {
  trap 'journalctl --unit kms --no-pager | tail -5' ERR
  local health=http://127.0.0.1:9002/kms/v1/health
  systemctl start kms.service
  is ActiveState active
  # Started is what it says itself to be: it answers at once.
  curl --silent --show-error --fail --output /dev/null $health
  curl --silent --show-error --fail --output /dev/null --cacert /etc/kms/pki/ca.pem \
    --cert /etc/kms/pki/client-M27.pem --key /etc/kms/pki/client-M27.key https://localhost:8002/kms/v1/config
  local process
  process=$(property MainPID)
  grep -q '^CapEff:[[:space:]]*0000000000000000$' /proc/"$process"/status || fail "it has capabilities"
  grep -q '^Seccomp:[[:space:]]*2$' /proc/"$process"/status || fail "it may call everything"
  grep -q '^Uid:[[:space:]]*990[[:space:]]' /proc/"$process"/status || fail "it is not kms"
  grep -q '"status":"healthy"' <(curl --silent $health) || fail "it is not well"
  echo "started"

  systemctl reload kms.service
  is MainPID "$process"
  journalctl --unit kms --no-pager | grep -q reloaded || fail "it read nothing again"
  echo "reloaded"

  # As docs/operations.md has it: with the service's settings, and as its user.
  (
    set -a
    . /etc/kms/kms.env
    as_kms() { runuser -u kms -- env ENVIRONMENT=production KMS__DATA_DIR=/var/lib/kms kms --config /etc/kms "$@"; }
    as_kms diagnose >/dev/null || fail "$(as_kms diagnose)"
    as_kms ledger rotate-key >/dev/null 2>&1
    for _ in $(seq 100); do
      test -e /var/lib/kms/ledger.key.next || break
      sleep 0.1
    done
    test ! -e /var/lib/kms/ledger.key.next || fail "the next key does not take over"
    as_kms backup --out - >/tmp/backup 2>/dev/null
    test "$(head -c 15 /tmp/backup)" = 'SQLite format 3' || fail "no backup comes out"
    ENVIRONMENT=production KMS__DATA_DIR=/var/lib/kms kms --config /etc/kms ledger rotate-key 2>/dev/null &&
      fail "root made a key that the service cannot read"
    openssl rand 32 >/etc/kms/pki/kek.next
    chown root:kms /etc/kms/pki/kek.next
    chmod 0640 /etc/kms/pki/kek.next
    for _ in $(seq 300); do
      curl --silent $health | grep -q kek.next && break
      sleep 0.1
    done
    curl --silent $health | grep -q kek.next || fail "the new key-encryption key is not taken"
  ) || exit 1
  echo "maintained"

  sleep 5
  is NRestarts 0
  kill -STOP "$process"
  until_is NRestarts 1
  until_is ActiveState active
  curl --silent --show-error --fail --retry 20 --retry-delay 1 --retry-all-errors --output /dev/null $health
  echo "came back after it stood still"

  systemctl stop kms.service
  is ActiveState inactive
  is Result success
  echo "stopped"

  echo KMS__SERVER__REQUEST_TIMEOUT=soon >>/etc/kms/kms.env
  systemctl start kms.service 2>/dev/null && fail "it started with a faulty configuration"
  is ActiveState failed
  is ExecMainStatus 64
  sleep 4
  is NRestarts 0
  echo "stays down with a faulty configuration"
  echo "all is well"
}

case ${1:-} in
  --boot) boot "$2" "$3" ;;
  --within) within ;;
  ?*)
    binary=$(realpath "$1")
    report=$(mktemp)
    trap 'rm -f "$report"' EXIT
    timeout --signal KILL 180 unshare --fork --kill-child --pid --mount-proc --mount --uts --ipc --net \
      bash -c 'ip link set lo up; exec bash "$0" --boot "$1" "$2"' "$here/try.sh" "$binary" "$report" || true
    cat "$report"
    grep -qx 'all is well' "$report" || exit 1
    ;;
  *) fail "usage: $0 BINARY" ;;
esac
