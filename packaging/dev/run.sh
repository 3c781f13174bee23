#!/usr/bin/env bash
# Start a daemon from this checkout with its data in var/, ask it one question, and wait for Ctrl-C.
# LLMD_PORT=5001 selects another port. The settings are in var/llmd.toml, written at the first run.
set -euo pipefail
# shellcheck source=packaging/dev/steps.sh
. "$(dirname "$0")/steps.sh"

var="$root/var"
config="$var/llmd.toml"
key_file="$var/admin.key"
log="$var/llmd.log"
llmd=("$venv/bin/llmd" --config "$config")
model="$("$root/packaging/dev/model.sh" --path)"
daemon=""

# write_config: write the settings of the first run. After that the file belongs to the developer.
write_config() {
  cat >"$config.new" <<TOML
# Written by "make run"; change it as you like. All options are in etc/llmd.toml.
[server]
listen = ["127.0.0.1:5000"]

[store]
url = "sqlite:///$var/llmd.db"

[models]
dir = "$var/models"
default = "$(basename "$model")"

[cache]
dir = "$var/cache"
TOML
  mv "$config.new" "$config"
}

# write_port: write LLMD_PORT into a separate file, so that var/llmd.toml stays unchanged.
write_port() {
  local file="$var/conf.d/port.toml"
  if [ -n "${LLMD_PORT:-}" ]; then
    [[ "$LLMD_PORT" =~ ^[1-9][0-9]{0,4}$ && "$LLMD_PORT" -le 65535 ]] \
      || die "LLMD_PORT=$LLMD_PORT is not a port: give a number from 1 to 65535"
    mkdir -p "$var/conf.d"
    printf '[server]\nlisten = ["127.0.0.1:%s"]\n' "$LLMD_PORT" >"$file"
  else
    rm -f "$file"
  fi
}

# address: print the host:port that the daemon will listen on.
address() {
  if [ -n "${LLMD_PORT:-}" ]; then
    printf '127.0.0.1:%s\n' "$LLMD_PORT"
    return
  fi
  "$venv/bin/python" - "$config" <<'PYTHON'
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    listen = tomllib.load(file).get("server", {}).get("listen", ["127.0.0.1:5000"])[0]
host, _, port = listen.rpartition(":")
print(f"{'127.0.0.1' if host in ('', '0.0.0.0', '[::]') else host}:{port}")
PYTHON
}

# healthy URL: succeed if GET /health answers 200; print the reason if the model has failed.
healthy() {
  "$venv/bin/python" - "$1/health" <<'PYTHON'
import json
import sys
import urllib.error
import urllib.request

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with opener.open(sys.argv[1], timeout=5) as response:
        sys.exit(response.status != 200)
except urllib.error.HTTPError as error:
    health = json.load(error)
    if health["status"] == "failed":
        print(health["reason"])
        sys.exit(2)
    sys.exit(1)
except OSError:
    sys.exit(1)
PYTHON
}

# occupied HOST:PORT: succeed if something listens there already.
occupied() { (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; }

# end_daemon: end the daemon and wait for it, whatever the reason that this script ends.
end_daemon() {
  local status="$?"
  trap '' INT TERM
  if [ -n "$daemon" ] && kill -TERM "$daemon" 2>/dev/null; then
    printf '\nllmd is stopping\n'
    wait "$daemon" && echo "llmd has stopped" || status="$?"
  fi
  exit "$status"
}

# gone: report that the daemon died by itself, with the end of its log.
gone() {
  local status=0
  wait "$daemon" || status=$?
  daemon=""
  tail -n 20 "$log" >&2
  die "the daemon ended with status $status; its log is $log"
}

umask 077
mkdir -p "$var/models"
[ -e "$config" ] || write_config
write_port
ln -sfn "$model" "$var/models/$(basename "$model")"

at="$(address)"
url="http://$at"
occupied "$at" && die "$at is in use; set LLMD_PORT to a free port"

if [ ! -e "$key_file" ]; then
  "${llmd[@]}" init --key-file "$key_file"
fi

trap end_daemon EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
# In its own process group the daemon does not get Ctrl-C. This script does, and stops it in order.
set -m
"${llmd[@]}" serve >"$log" 2>&1 &
daemon=$!
set +m

printf 'llmd is starting on %s; its log is in %s\n' "$url" "$log"
patience_s="${LLMD_START_S:-300}"
until reason="$(healthy "$url")"; do
  kill -0 "$daemon" 2>/dev/null || gone
  [ -z "$reason" ] || die "the model cannot be loaded: $reason; the log is $log"
  if [ "$SECONDS" -ge "$patience_s" ]; then
    tail -n 20 "$log" >&2
    die "not healthy after $patience_s s; the log is $log"
  fi
  sleep 0.2
done

question="What is the capital of France? Answer in one word."
printf '\n  you:  %s\n' "$question"
answer="$(LLMD_KEY="$(cat "$key_file")" "${llmd[@]}" ask --session 1 --temperature 0 "$question")"
printf '  llmd: %s\n' "$answer"

cat <<TEXT

Ask the next one from another terminal, in this folder:
  curl -s $url/answer -H "Authorization: Bearer \$(cat var/admin.key)" \\
    -d '{"prompt": "And of Italy?", "session_id": 1}'
Ctrl-C stops the daemon.
TEXT

# From here on, a signal to end is not a failure.
trap 'exit 0' INT TERM
wait "$daemon" || gone
daemon=""
