# shellcheck shell=bash
# Paths and functions that the scripts in this folder share.
# Source it after `set -euo pipefail`; it does nothing by itself.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
venv="$root/.venv"
cache="${LLMD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/llmd}"
export root venv cache
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

# die MESSAGE...: end with a message on standard error.
die() {
  printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2
  exit 1
}

# step TITLE COMMAND...: run the command quietly; print the title and the seconds that it took, or
# the end of its output if it failed.
step() {
  local title="$1" started="$SECONDS" log status
  shift
  log="$(mktemp)"
  # Not `if "$@"`: bash would then ignore commands that fail inside a function.
  set +e
  (set -e && "$@") >"$log" 2>&1
  status="$?"
  set -e
  if [ "$status" -eq 0 ]; then
    printf '  %-58s %4d s\n' "$title" "$((SECONDS - started))"
    rm -f "$log"
  else
    printf '  %-58s failed; its last lines:\n' "$title" >&2
    tail -n 30 "$log" >&2
    die "\"$title\" failed; its whole output is in $log"
  fi
}

# requirement NAME FILE: print the lines of one pin of a lock file, with its hashes.
requirement() {
  awk -v name="$1==" 'index($0, name) == 1 { on = 1 } on { print } on && !/\\$/ { exit }' "$2"
}
