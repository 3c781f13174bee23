#!/usr/bin/env bash
# Start a daemon out of this checkout with its data in var/, ask it one question, and stay with it
# until Ctrl-C. Another port: LLMD_PORT=5001. Settings: var/llmd.toml, made at the first run.
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

# write_config: the settings of the first run; later it is the developer's file.
write_config() {
  cat >"$config.new" <<TOML
# Made by "make run"; change what you like. All options: etc/llmd.toml.
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

# write_port: LLMD_PORT in a file of its own, so that var/llmd.toml stays as it is.
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

# address: host:port that the daemon will listen on.
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

# healthy URL: whether GET /health answers 200.
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

# occupied HOST:PORT: whether something listens there already.
occupied() { (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; }

# end_daemon: ask it to end and wait for it, whatever this script ends for.
end_daemon() {
  local status="$?"
  trap '' INT TERM
  if [ -n "$daemon" ] && kill -TERM "$daemon" 2>/dev/null; then
    printf '\nllmd is ending\n'
    wait "$daemon" && echo "llmd has ended" || status="$?"
  fi
  exit "$status"
}

# gone: the daemon died by itself; tell what it said last.
gone() {
  local status=0
  wait "$daemon" || status=$?
  daemon=""
  tail -n 20 "$log" >&2
  die "the daemon ended with status $status; all it said is in $log"
}

umask 077
mkdir -p "$var/models"
[ -e "$config" ] || write_config
write_port
ln -sfn "$model" "$var/models/$(basename "$model")"

at="$(address)"
url="http://$at"
occupied "$at" && die "$at is taken; set LLMD_PORT to a free port"

if [ ! -e "$key_file" ]; then
  "${llmd[@]}" init --key-file "$key_file"
fi

trap end_daemon EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
# A process group of its own: Ctrl-C comes here, and here it is made into an orderly end.
set -m
"${llmd[@]}" serve >"$log" 2>&1 &
daemon=$!
set +m

printf 'llmd is starting on %s; its log is in %s\n' "$url" "$log"
patience_s="${LLMD_START_S:-300}"
until reason="$(healthy "$url")"; do
  kill -0 "$daemon" 2>/dev/null || gone
  [ -z "$reason" ] || die "no answer is to be had: $reason; all it said is in $log"
  if [ "$SECONDS" -ge "$patience_s" ]; then
    tail -n 20 "$log" >&2
    die "not healthy after $patience_s s; all it said is in $log"
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
Ctrl-C ends the daemon.
TEXT

# From here on to be told to end is no failure.
trap 'exit 0' INT TERM
wait "$daemon" || gone
daemon=""
