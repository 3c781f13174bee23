#!/usr/bin/env bash
# Build llmd's Debian packages for one release, in a root folder of that release, without a network.
#
#   deb.sh SUITE [FOLDER]   build from the files that git knows, into FOLDER or dist/SUITE
#
# Does nothing if the packages there were built from the same files.
set -euo pipefail
# shellcheck source=packaging/dev/steps.sh
. "$(dirname "$0")/steps.sh"
cd "$root"

suite="${1:?bookworm or trixie}"
out="${2:-$root/dist/$suite}"
case "$suite" in
  bookworm) python=3.11 release=deb12 ;;
  trixie) python=3.13 release=deb13 ;;
  *) die "llmd is not built for $suite; give bookworm or trixie" ;;
esac
[ "$(id -u)" -eq 0 ] || die "building in a chroot needs root: run this with sudo"

# The libraries are built on this machine. They run on its release and on newer ones.
# shellcheck source=/dev/null
host="$(. /etc/os-release && echo "${VERSION_CODENAME:-}")"
[[ "$host" = "$suite" || "$host" = bookworm ]] \
  || die "packages for $suite must be built on $suite or bookworm, not on ${host:-another system}"

dev=packaging/dev
base="$("$dev/root.sh" build "$suite")"
engine="$("$dev/engine.sh" --path-all)"
[ -d "$engine" ] || die "no llama.cpp libraries with every CPU variant yet: run make engine-all"
model="$("$dev/model.sh" --path)"

# sources: list the files that git knows; they go into the build as they are now.
sources() { git ls-files -z --cached --others --exclude-standard -- . ':!tests' ':!bench' ':!.ci'; }
state="$(
  { printf '%s\n' "$base" "$engine"
    sources | xargs -0 sha256sum 2>/dev/null; } | sha256sum | cut -d' ' -f1
)"
if [ "$(cat "$out/.state" 2>/dev/null)" = "$state" ]; then
  exit 0
fi

# The wheels that the lock files name for the release's Python, checked against their hashes.
lock="$(sha256sum requirements/{run,build}.txt "$dev/target.py" | sha256sum | cut -c1-12)"
wheels="$cache/wheels/$suite-$lock"
platforms=()
for platform in manylinux_2_{5,12,17,24,26,27,28,31,34}_x86_64 manylinux{1,2010,2014}_x86_64; do
  platforms+=(--platform "$platform")
done
fetch_wheels() {
  "$venv/bin/python" "$dev/target.py" "$python" requirements/run.txt llama-cpp-python >"$1/run.txt"
  "$venv/bin/python" "$dev/target.py" "$python" requirements/build.txt uv pip >"$1/build.txt"
  for file in run build; do
    "$venv/bin/python" -m pip download --no-deps --only-binary :all: --require-hashes \
      --python-version "$python" --implementation cp --abi "cp${python/./}" --abi abi3 --abi none \
      "${platforms[@]}" --dest "$1/wheels" --requirement "$1/$file.txt"
  done
  requirement llama-cpp-python requirements/run.txt >"$1/source.txt"
  CMAKE_ARGS="-DLLAMA_BUILD=OFF -DLLAVA_BUILD=OFF" "$venv/bin/python" -m pip download --no-deps \
    --no-build-isolation --no-binary llama-cpp-python --require-hashes \
    --dest "$1/wheels" --requirement "$1/source.txt"
}
if [ ! -d "$wheels" ]; then
  rm -rf "$wheels.new"
  mkdir -p "$wheels.new/wheels"
  step "Python packages for $suite" fetch_wheels "$wheels.new"
  mv "$wheels.new" "$wheels"
fi

# A mount namespace of its own: all mounts disappear when this script ends.
if [ -z "${LLMD_DEB_NAMESPACE:-}" ]; then
  LLMD_DEB_NAMESPACE=1 exec unshare --mount --propagation private "$0" "$@"
fi
work="$(mktemp -d "$cache/deb-XXXXXX")"
trap 'cd /; umount -lq "$work/root" || true; rm -rf "$work"' EXIT
mkdir "$work"/{root,upper,lower,out}
mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/lower" "$work/root"
# A path that no file of the packages contains by accident.
build="$work/root/build/llmd"
mkdir -p "$build/inputs"
mount -t proc proc "$work/root/proc"

prepare() {
  sources | tar --create --null --files-from - | tar --extract --directory "$build"
  ln -s packaging/deb "$build/debian"
  cp -r "$wheels/wheels" "$wheels/run.txt" "$build/inputs/"
  cp -rL "$engine" "$build/inputs/engine"
  # One copy of each library, with links for its other names.
  for file in "$engine"/*; do
    [ ! -L "$file" ] || ln -sf "$(readlink "$file")" "$build/inputs/engine/${file##*/}"
  done
  cp "$model" "$build/inputs/"
  # Each release has its own packages; the version number names the release.
  sed -i "1s/(\([^)]*\)) [a-z]*;/(\1~$release) $suite;/" "$build/debian/changelog"
  chown -R root:root "$build"
}
in_root() { unshare --net chroot "$work/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/nonexistent "$@"; }
packages() { in_root sh -c 'cd /build/llmd && umask 022 && dpkg-buildpackage --unsigned-source --unsigned-changes --build=binary'; }
check() { in_root sh -c 'cd /build && lintian --fail-on error,warning --tag-display-limit 0 --allow-root ./*.changes'; }

step "sources and libraries" prepare
step "packages for $suite" packages
step "lintian" check
rm -rf "$out"
mkdir -p "$out"
cp "$work"/root/build/*.deb "$out/"
printf '%s\n' "$state" >"$out/.state"
for file in "$out"/*.deb; do
  printf '  %s  %s MB\n' "${file#"$root/"}" "$(($(stat -c %s "$file") / 1000000))"
done
