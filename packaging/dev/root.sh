#!/usr/bin/env bash
# Make a root folder of a Debian release, once per machine, and print its path. Needs root.
#
#   root.sh build SUITE   a root that builds packages
#   root.sh test SUITE    a root to boot, with systemd and llmd's dependencies
#
# A root does not change once it has its name: callers mount an overlay on top of it.
set -euo pipefail
# shellcheck source=packaging/dev/steps.sh
. "$(dirname "$0")/steps.sh"

purpose="${1:?build or test}" suite="${2:?bookworm or trixie}"
case "$purpose" in
  build) packages=bash-completion,build-essential,debhelper,dh-python,fakeroot,lintian,man-db,python3-pip,python3-venv ;;
  test) packages=systemd,systemd-sysv,dbus,python3,libgomp1,curl,nginx-light,openssl,procps ;;
  *) die "give build or test, not $purpose" ;;
esac
key="$(sha256sum <<<"$packages" | cut -c1-12)"
made="$cache/roots/$purpose-$suite-$key"

if [ ! -d "$made" ]; then
  [ "$(id -u)" -eq 0 ] || die "making a root folder of Debian needs root: run this with sudo"
  command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: apt-get install mmdebstrap"
  mkdir -p "$cache/roots"
  exec 9>"$cache/roots/.lock"
  flock 9
  if [ ! -d "$made" ]; then
    rm -rf "$made.new"
    step "root of Debian $suite to $purpose in" mmdebstrap --quiet --mode=root --variant=minbase \
      --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
      --include="$packages" "$suite" "$made.new" >&2
    mv "$made.new" "$made"
  fi
fi
printf '%s\n' "$made"
