#!/usr/bin/env bash
# Build the llama.cpp libraries once per machine, from the tree inside the locked llama-cpp-python
# source distribution, and link .venv/engine to them.
#
#   engine.sh             build what this processor needs, unless it is there, and link
#   engine.sh --all       the same with every variant of the CPU code, as the packages need it
#   engine.sh --native    build for exactly this processor, to compare with, and print the folder
#   engine.sh --path      print the folder that engine.sh links to, built or not
#   engine.sh --path-all  print the folder with every variant, built or not
#
# The folder's name depends on all that went into it: version, flags, compiler and, with a single
# variant, the processor's features. So no build is used where it does not belong, not even by
# another processor with the same cache. A build does not change once it has its name.
set -euo pipefail
# shellcheck source=packaging/dev/steps.sh
. "$(dirname "$0")/steps.sh"

# shellcheck disable=SC2016  # the loader reads $ORIGIN, not this shell
flags=(
  -G Ninja
  -DCMAKE_BUILD_TYPE=Release
  -DBUILD_SHARED_LIBS=ON
  # One library per CPU generation, chosen when it is loaded: the same build runs everywhere.
  -DGGML_NATIVE=OFF
  -DGGML_CPU_ALL_VARIANTS=ON
  -DGGML_BACKEND_DL=ON
  # The libraries alone: no programs, no downloads.
  -DLLAMA_BUILD_COMMON=OFF
  -DLLAMA_BUILD_TOOLS=OFF
  -DLLAMA_BUILD_EXAMPLES=OFF
  -DLLAMA_BUILD_TESTS=OFF
  -DLLAMA_BUILD_SERVER=OFF
  -DLLAMA_BUILD_APP=OFF
  -DLLAMA_CURL=OFF
  -DLLAMA_OPENSSL=OFF
  # The libraries find each other wherever the folder is moved to.
  '-DCMAKE_INSTALL_RPATH=$ORIGIN'
  -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON
)

mode="${1:-}"
case "$mode" in
  "" | --all | --native | --path | --path-all) ;;
  *) die "give --all, --native, --path, --path-all or nothing, not $mode" ;;
esac
if [ "$mode" = --native ]; then
  flags=("${flags[@]/-DGGML_NATIVE=OFF/-DGGML_NATIVE=ON}")
  flags=("${flags[@]/-DGGML_CPU_ALL_VARIANTS=ON/-DGGML_CPU_ALL_VARIANTS=OFF}")
  flags=("${flags[@]/-DGGML_BACKEND_DL=ON/-DGGML_BACKEND_DL=OFF}")
fi

pin="$(requirement llama-cpp-python "$root/requirements/run.txt")"
version="$(sed -n 's/^llama-cpp-python==\([^ ]*\).*/\1/p' <<<"$pin")"
sdist_sha256="$(grep -o 'sha256:[0-9a-f]\{64\}' <<<"$pin" | cut -d: -f2)"
[[ "$sdist_sha256" =~ ^[0-9a-f]{64}$ ]] \
  || die "requirements/run.txt must pin llama-cpp-python with one hash, that of its sdist"

# repair SOURCE: work around a bug of Debian's compilers.
repair() {
  local file="$1/vendor/llama.cpp/ggml/src/ggml-cpu/amx/mmq.cpp"
  # GCC 12 assumes that _tile_loadconfig reads 8 bytes, and drops the stores of the other 56. Each
  # tile then has no rows, and the first use of one on a processor with AMX ends in a SIGILL.
  sed -i 's/^    _tile_loadconfig(&tc);$/    __asm__ volatile("" : : "r"(\&tc) : "memory");\n&/' "$file"
  [ "$(grep -c '^    _tile_loadconfig(&tc);$' "$file")" = 1 ]
  grep -q '__asm__ volatile("" : : "r"(&tc) : "memory");' "$file"
}

# separate SOURCE: let ninja build libggml without all variants of the CPU code. libggml loads
# them at run time and does not need them to be built.
separate() {
  local file="$1/vendor/llama.cpp/ggml/src/CMakeLists.txt"
  grep -qx ' *add_dependencies(ggml .{backend})' "$file" \
    || die "llama.cpp has changed: libggml does not depend on its variants as expected"
  sed -i '/^ *add_dependencies(ggml .{backend})$/d' "$file"
}

# compiler PROGRAM: print its version and its target, in one line each.
compiler() {
  "$1" --version 2>/dev/null | sed -n 1p || die "no compiler $1; run packaging/dev/prereqs.sh"
  "$1" -dumpmachine
}
key="$(
  { printf '%s\n' "${flags[@]}" "$sdist_sha256" "$(declare -f repair)"
    compiler "${CC:-cc}"
    compiler "${CXX:-c++}"; } | sha256sum | cut -c1-12
)"
store="$cache/engine"
complete="$store/$version-$key"
engine="$complete"
# A build with every variant serves as well, and without known features there is no other.
if [[ "$mode" =~ ^(--path)?$ && ! -d "$complete" ]]; then
  features="$("${PYTHON:-python3}" "$root/packaging/dev/cpu_variant.py" features)"
  engine="$complete${features:+-$features}"
fi

case "$mode" in
  --path) printf '%s\n' "$engine" && exit 0 ;;
  --path-all) printf '%s\n' "$complete" && exit 0 ;;
esac

# link: make .venv/engine lead to the folder; llmd looks for its libraries at sys.prefix/engine.
link() {
  [ -d "$venv" ] || die "no $venv yet; run packaging/dev/venv.sh first"
  if [ "$(readlink "$venv/engine" 2>/dev/null)" != "$engine" ]; then
    ln -sfn "$engine" "$venv/engine"
  fi
}

# fetch FOLDER: download the source distribution, which pip checks against the lock file.
fetch() {
  printf '%s\n' "$pin" >"$1/requirement.txt"
  # The package's own build makes the metadata, and must not start to compile.
  CMAKE_ARGS="-DLLAMA_BUILD=OFF -DLLAVA_BUILD=OFF" "$venv/bin/python" -m pip download \
    --no-deps --no-build-isolation --no-binary llama-cpp-python --require-hashes \
    --requirement "$1/requirement.txt" --dest "$1"
  printf '%s  %s\n' "$sdist_sha256" "$(echo "$1"/*.tar.gz)" | sha256sum --check --quiet -
  mkdir "$1/source"
  tar -xzf "$1"/*.tar.gz -C "$1/source" --strip-components=1
  repair "$1/source"
}

# progress: read ninja's lines and print the percentage: in place on a terminal, otherwise on a
# line of its own every 10 %.
progress() {
  local line percent next=0
  while IFS= read -r line; do
    [[ "$line" =~ ^\[\ *([0-9]+)%\] ]] || continue
    percent="${BASH_REMATCH[1]}"
    if [ -t 1 ]; then
      printf '\r  building llama.cpp %3d %%' "$percent"
    elif [ "$percent" -ge "$next" ]; then
      printf '  building llama.cpp %3d %%\n' "$percent"
      next=$((percent - percent % 10 + 10))
    fi
  done
  [ ! -t 1 ] || echo
}

# configure SOURCE BUILD: run CMake; keep its report, which names the variants, in BUILD.log.
configure() {
  "$venv/bin/cmake" "${flags[@]}" -DCMAKE_MAKE_PROGRAM="$venv/bin/ninja" -S "$1" -B "$2" 2>&1 \
    | tee "$2.log"
}

# compile BUILD LOG TARGET...: build the targets, or all, on all cores that this process may use.
compile() {
  local status=0
  NINJA_STATUS='[%p] ' "$venv/bin/ninja" -C "$1" -j "$(nproc)" "${@:3}" 2>&1 | tee -a "$2" \
    | progress || status=$?
  if [ "$status" -ne 0 ]; then
    tail -n 20 "$2" >&2
    die "building llama.cpp failed; its whole output is in $2"
  fi
}

# collect BUILD FOLDER: copy the shared libraries, stripped, with the links between their names.
collect() {
  mkdir "$2"
  cp -a "$1"/bin/*.so* "$2/"
  find "$2" -type f -exec strip --strip-unneeded {} +
  find "$2" -type f -exec chmod 0644 {} +
  [ -e "$2/libllama.so" ] && [ -e "$2/libggml.so" ]
  # Load it: a library that lacks a symbol is found here, not by the first request.
  "$venv/bin/python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$2/libllama.so"
}

build() {
  local work log="$engine.log" started="$SECONDS" variant targets=()
  # In the same folder, so that the rename stays within one file system.
  work="$(mktemp -d "$store/.build-XXXXXX")"
  # shellcheck disable=SC2064  # the name is expanded now
  trap "rm -rf '$work'" EXIT
  : >"$log"
  step "llama-cpp-python $version, source" fetch "$work"
  if [ "$engine" != "$complete" ]; then separate "$work/source"; fi
  step "configuring llama.cpp" configure "$work/source/vendor/llama.cpp" "$work/build"
  if [ "$engine" != "$complete" ]; then
    variant="$("$venv/bin/python" "$root/packaging/dev/cpu_variant.py" best "$work/build.log")"
    if [ -n "$variant" ]; then
      echo "  building the CPU code \"$variant\" only, which this processor runs best"
      targets=(llama "ggml-cpu-$variant")
    else
      engine="$complete"
    fi
  fi
  compile "$work/build" "$log" "${targets[@]}"
  step "collecting the libraries" collect "$work/build" "$work/engine"
  mv -T "$work/engine" "$engine"
  rm -rf "$work" "$log"
  printf 'engine: built in %d s\n' "$((SECONDS - started))"
}

if [ ! -d "$engine" ]; then
  [ -x "$venv/bin/cmake" ] || die "no cmake in $venv; run packaging/dev/venv.sh first"
  mkdir -p "$store"
  exec 9>"$store/.lock"
  if ! flock --nonblock 9; then
    echo "engine: another build is under way; waiting for it"
    flock 9
  fi
  if [ ! -d "$engine" ]; then
    if [[ "$engine" = "$complete" && "$mode" != --native ]]; then minutes=ten; else minutes=four; fi
    echo "engine: building $engine (once; about $minutes minutes on two cores)"
    build
  fi
fi
if [ "$mode" = --native ]; then
  printf '%s\n' "$engine"
else
  link
fi
