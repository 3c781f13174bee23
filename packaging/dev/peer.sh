#!/usr/bin/env bash
# Build llama.cpp's own server and tools once per machine, to compare llmd with (bench/); download
# what the server in llama-cpp-python needs; convert the small model to Q4_0.
#
#   peer.sh           build whatever is missing
#   peer.sh --path    print the folder with the programs, built or not
#   peer.sh --python  print the folder with the Python packages, downloaded or not
#   peer.sh --model   print the path of the Q4_0 file, made or not
#
# The programs are built from the engine's source with the engine's flags, beside a copy of the
# engine's own libraries: the benchmarks compare how the libraries are used, not how they are built.
set -euo pipefail
# shellcheck source=packaging/dev/steps.sh
. "$(dirname "$0")/steps.sh"

programs=(llama-server llama-batched-bench llama-quantize)
peer_flags=(
  # The libraries with CPU code come from the engine; the programs load them when they start.
  -DGGML_CPU=OFF
  -DGGML_CPU_ALL_VARIANTS=OFF
  -DLLAMA_BUILD_COMMON=ON
  -DLLAMA_BUILD_TOOLS=ON
  -DLLAMA_BUILD_SERVER=ON
  # The second would download web pages.
  -DLLAMA_BUILD_UI=OFF
  -DLLAMA_USE_PREBUILT_UI=OFF
)

of_engine="$("$root/packaging/dev/engine.sh" --path)"
peer_key="$(printf '%s\n' "$(basename "$of_engine")" "${programs[@]}" "${peer_flags[@]}" \
  | sha256sum | cut -c1-12)"
peers="$cache/peer"
version="$(basename "$of_engine")"
peer="$peers/${version%%-*}-$peer_key"
small="$("$root/packaging/dev/model.sh" --path)"
small_q4_0="${small%.*.gguf}.Q4_0.gguf"

[ -x "$venv/bin/python" ] || die "no $venv yet; run packaging/dev/venv.sh first"
# Not in .venv, which contains locked packages only.
python_peer="$peer-$("$venv/bin/python" -c 'import sys; print(sys.implementation.cache_tag)')"

case "${1:-}" in
  --path) printf '%s\n' "$peer" && exit 0 ;;
  --python) printf '%s\n' "$python_peer" && exit 0 ;;
  --model) printf '%s\n' "$small_q4_0" && exit 0 ;;
  "") ;;
  *) die "give --path, --python, --model or nothing, not $1" ;;
esac

# make_programs BUILD: build these programs only; all of llama.cpp's tools would take twice as long.
make_programs() {
  NINJA_STATUS='[%p] ' "$venv/bin/ninja" -C "$1" -j "$(nproc)" "${programs[@]}" 2>&1 \
    | tee "$peer.log" | progress || die "building the programs failed; their whole output is in $peer.log"
}

# gather BUILD FOLDER: copy the programs, the libraries that only they need, and the engine's.
gather() {
  local file
  cp -a "$of_engine" "$2"
  for file in "$1"/bin/*.so*; do
    [ -e "$2/$(basename "$file")" ] || cp -a "$file" "$2/"
  done
  # Libraries of the same version have the same names, so none of this build replaced the engine's.
  [ "$(find "$2" -name 'libllama.so.*.*' | wc -l)" = 1 ]
  for file in "${programs[@]}"; do cp "$1/bin/$file" "$2/"; done
  find "$2" -type f -exec strip --strip-unneeded {} +
  for file in "${programs[@]}"; do
    ldd -r "$2/$file" | tee "$1/needs.txt"
    if grep -E 'not found|undefined symbol' "$1/needs.txt"; then return 1; fi
  done
}

build_peer() {
  local work started="$SECONDS"
  work="$(mktemp -d "$peers/.build-XXXXXX")"
  # shellcheck disable=SC2064  # the name is expanded now
  trap "rm -rf '$work'" EXIT
  step "llama-cpp-python $version, source" fetch "$work"
  step "configuring llama.cpp with its server" "$venv/bin/cmake" "${flags[@]}" "${peer_flags[@]}" \
    -DCMAKE_MAKE_PROGRAM="$venv/bin/ninja" -S "$work/source/vendor/llama.cpp" -B "$work/build"
  make_programs "$work/build"
  step "collecting the programs" gather "$work/build" "$work/peer"
  mv -T "$work/peer" "$peer"
  rm -rf "$work" "$peer.log"
  printf 'peer: built in %d s\n' "$((SECONDS - started))"
}

# packages: install what llama-cpp-python requires for its server.
packages() {
  local wanted
  mapfile -t wanted < <("$venv/bin/python" - <<'PYTHON'
from importlib.metadata import requires

for line in requires("llama-cpp-python"):
    name, _, condition = line.partition(";")
    if 'extra == "server"' in condition:
        print(name.strip())
PYTHON
  )
  "$venv/bin/python" -m pip install --only-binary :all: --target "$python_peer.new" "${wanted[@]}"
  mv -T "$python_peer.new" "$python_peer"
}

# quantize: convert from Q4_1, which costs quality. The file is for measuring speed only.
quantize() {
  "$peer/llama-quantize" --allow-requantize "$small" "$small_q4_0.new" Q4_0 "$(nproc)"
  mv "$small_q4_0.new" "$small_q4_0"
}

# Sourcing this builds or finds the engine, and provides its flags and functions.
# shellcheck source=packaging/dev/engine.sh
. "$root/packaging/dev/engine.sh" ""

mkdir -p "$peers"
exec 8>"$peers/.lock"
flock 8
if [ ! -d "$peer" ]; then
  echo "peer: building $peer (once; some minutes)"
  build_peer
fi
if [ ! -d "$python_peer" ]; then
  rm -rf "$python_peer.new"
  step "packages for llama-cpp-python's server" packages
fi
if [ ! -e "$small_q4_0" ]; then
  [ -e "$small" ] || die "no $small yet; run packaging/dev/model.sh first"
  step "$(basename "$small_q4_0") from $(basename "$small")" quantize
fi
