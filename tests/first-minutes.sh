#!/usr/bin/env bash
# `certmap dev` on a free machine: the two answers that matter most, with curl. Argument: the program.
set -euo pipefail
directory=$(mktemp -d)
"$1" dev "$directory/dev" --http 127.0.0.1:0 --https 127.0.0.1:0 --admin 127.0.0.1:0 >"$directory/out" 2>"$directory/err" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$directory"' EXIT
for _ in $(seq 100); do
  port=$(sed -n 's/^listening .*https=127\.0\.0\.1:\([0-9]*\).*/\1/p' "$directory/err")
  [ -n "$port" ] && break
  sleep 0.1
done
[ -n "$port" ] || { cat "$directory/err"; exit 1; }
ask() { curl -sS --cacert "$directory/dev/server-ca.crt" "$@" "https://localhost:$port/"; }
ask --cert "$directory/dev/alice.crt" --key "$directory/dev/alice.key" | grep -q '^user: azureuser$'
ask | grep -q '403\.7 Client certificate required'
kill "$server"
wait "$server"
echo "alice is azureuser, nobody is 403.7, and it stops when told"
