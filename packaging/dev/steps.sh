# shellcheck shell=bash
# What the steps of the set-up share: where things lie, and how a step tells of itself.
# Sourced after `set -euo pipefail`; no step of its own.

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

# step TITLE COMMAND...: run the command quietly; tell the title and the seconds, or what went wrong.
step() {
  local title="$1" started="$SECONDS" log status
  shift
  log="$(mktemp)"
  # Not `if "$@"`: bash would then go on after a command that failed inside a function.
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
    die "\"$title\" failed; all it said is in $log"
  fi
}

# requirement NAME FILE: the lines of one pin, with its hashes, out of a lock file.
requirement() {
  awk -v name="$1==" 'index($0, name) == 1 { on = 1 } on { print } on && !/\\$/ { exit }' "$2"
}
