#!/usr/bin/env bash
# Make a root folder of a Debian release, once a machine, and print where it lies. Needs root.
#
#   root.sh build SUITE   with what builds packages
#   root.sh test SUITE    with systemd and what llmd depends on, to be booted
#
# Who uses one lays a file system of its own over it: a root is never changed once it has its name.
set -euo pipefail
# shellcheck source=packaging/dev/steps.sh
. "$(dirname "$0")/steps.sh"

purpose="${1:?build or test}" suite="${2:?bookworm or trixie}"
case "$purpose" in
  build) packages=bash-completion,build-essential,debhelper,dh-python,fakeroot,lintian,man-db,python3-pip,python3-venv ;;
  test) packages=systemd,systemd-sysv,dbus,python3,libgomp1,curl,nginx-light,openssl,procps ;;
  *) die "build or test, not $purpose" ;;
esac
key="$(sha256sum <<<"$packages" | cut -c1-12)"
made="$cache/roots/$purpose-$suite-$key"

if [ ! -d "$made" ]; then
  [ "$(id -u)" -eq 0 ] || die "making a Debian root needs root: run this with sudo"
  command -v mmdebstrap >/dev/null || die "no mmdebstrap: apt-get install mmdebstrap"
  mkdir -p "$cache/roots"
  exec 9>"$cache/roots/.lock"
  flock 9
  if [ ! -d "$made" ]; then
    rm -rf "$made.new"
    step "Debian $suite, root to $purpose in" mmdebstrap --quiet --mode=root --variant=minbase \
      --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
      --include="$packages" "$suite" "$made.new" >&2
    mv "$made.new" "$made"
  fi
fi
printf '%s\n' "$made"
