#!/usr/bin/env bash
# Create .venv from the lock files, with llmd as an editable install. Does nothing if the lock
# files, setup.cfg and Python have not changed since the last time.
#
#   venv.sh       install the packages for all purposes
#   venv.sh run   install those to build and run llmd only, unless all are there already
#
# llama-cpp-python is installed from its source distribution without building llama.cpp: engine.sh
# builds the libraries once, and they outlive any virtual environment.
set -euo pipefail
# shellcheck source=packaging/dev/steps.sh
. "$(dirname "$0")/steps.sh"

purpose="${1:-all}"
case "$purpose" in
  all) requirements=(-r requirements/run.txt -r requirements/dev.txt) ;;
  run) requirements=(-r requirements/run.txt) ;;
  *) die "give run or nothing, not $purpose" ;;
esac
python="${PYTHON:-python3}"
stamp="$venv/.llmd-stamp"
cd "$root"

# Two runs at once would overwrite each other. The lock is on the checkout itself.
exec 9<"$root"
flock 9

version="$("$python" -c 'import sys; print(sys.implementation.cache_tag, *sys.version_info[:3])')"
state="$(
  { printf '%s\n' "$version" "$root"
    cat requirements/{build,run,dev}.txt setup.cfg pyproject.toml packaging/dev/venv.sh; } \
    | sha256sum | cut -d' ' -f1
)"
if [ -x "$venv/bin/python" ]; then
  case "$(cat "$stamp" 2>/dev/null)" in
    "all $state" | "$purpose $state") exit 0 ;;
  esac
fi
rm -f "$stamp"

echo "virtual environment: $venv"
tag() { "$1" -c 'import sys; print(sys.implementation.cache_tag)' 2>/dev/null; }
if [ -d "$venv" ] && [ "$(tag "$venv/bin/python" || true)" != "${version%% *}" ]; then
  rm -rf "$venv"
fi
if [ ! -x "$venv/bin/pip" ]; then
  step "python -m venv" "$python" -m venv "$venv"
fi

pip() { "$venv/bin/python" -m pip "$@" 9<&-; }
locked() {
  CMAKE_ARGS="-DLLAMA_BUILD=OFF -DLLAVA_BUILD=OFF" pip install --require-hashes \
    --only-binary :all: --no-binary llama-cpp-python --no-build-isolation "$@"
}
step "requirements (build)" locked -r requirements/build.txt
step "requirements ($purpose)" locked "${requirements[@]}"
step "llmd, editable" pip install --no-deps --no-build-isolation --editable .
step "pip check" pip check
printf '%s %s\n' "$purpose" "$state" >"$stamp"
