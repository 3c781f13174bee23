#!/usr/bin/env bash
# Check for the programs that everything else needs: Python with venv, a C and C++ compiler, make.
# Install them where that is allowed. CMake and ninja come with the locked build requirements.
#
#   prereqs.sh       check for everything except packages
#   prereqs.sh deb   check for what builds Debian packages and boots machines to test them
set -euo pipefail
# shellcheck source=packaging/dev/steps.sh
. "$(dirname "$0")/steps.sh"

purpose="${1:-}"
python="${PYTHON:-python3}"
missing=()

have() { command -v "$1" >/dev/null 2>&1; }

look() {
  missing=()
  if [ "$purpose" = deb ]; then
    look_deb
    return
  fi
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    missing+=(python3)
  fi
  "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  # A compiler without its headers is of no use.
  printf '#include <stdlib.h>\nint main(void){return 0;}\n' \
    | "${CC:-gcc}" -x c -fsyntax-only - 2>/dev/null || missing+=(gcc libc6-dev)
  printf '#include <string>\nint main(){return 0;}\n' \
    | "${CXX:-g++}" -x c++ -fsyntax-only - 2>/dev/null || missing+=(g++)
  have strip || missing+=(binutils)
  have make || missing+=(make)
  have flock || missing+=(util-linux)
}

look_deb() {
  have mmdebstrap || missing+=(mmdebstrap)
  have systemd-nspawn || missing+=(systemd-container)
  have dpkg-deb || missing+=(dpkg)
  have ip || missing+=(iproute2)
  have qemu-x86_64-static || missing+=(qemu-user-static)
  have curl || missing+=(curl)
  have pgrep || missing+=(procps)
}

look
[ "${#missing[@]}" -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if have sudo && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
  else
    die "missing: ${missing[*]}; install them as root, on Debian: apt-get install ${missing[*]}"
  fi
fi
have apt-get || die "missing: ${missing[*]} (names in Debian); install these packages"

apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "$@"; }
wanted="${missing[*]}"
step "apt-get update" apt update
step "apt-get install $wanted" apt install -y --no-install-recommends "${missing[@]}"

look
if [ "${#missing[@]}" -ne 0 ]; then
  have "$python" && found=" ($python is $("$python" -V 2>&1))" || found=""
  die "still missing after installing: ${missing[*]}$found; llmd needs Python 3.11 or newer;" \
    "set PYTHON=/path/to/python3 if it is not the first on PATH"
fi
