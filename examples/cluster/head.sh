#!/usr/bin/env bash
# The head of a token-protected Ray cluster, in the foreground; what follows the name goes to `ray start`:
#   examples/cluster/head.sh --num-cpus=4
# Variables: RAY_PORT (6379), RAY_DASHBOARD_PORT (8265), RAY_AUTH_TOKEN_PATH (~/.ray/auth_token).
set -euo pipefail

export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
unset RAY_AUTH_TOKEN RAY_ADDRESS # the first would win over the file, the second over the ports

if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
  umask 077
  mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")"
  od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH"
  echo "made the token $RAY_AUTH_TOKEN_PATH: copy it to every other machine, mode 0600"
fi
chmod 600 "$RAY_AUTH_TOKEN_PATH" # Ray itself makes it readable by all

# --block ends when any of Ray's processes does, so that a supervisor can start all of them again
exec ray start --head --block --disable-usage-stats --port="${RAY_PORT:-6379}" \
  --dashboard-host=127.0.0.1 --dashboard-port="${RAY_DASHBOARD_PORT:-8265}" "$@"
