#!/usr/bin/env bash
# A machine that joins the cluster of head.sh, in the foreground; what follows the name goes to `ray start`:
#   RAY_HEAD=10.0.0.1 examples/cluster/worker.sh --resources='{"sampler": 2}'
# Variables: RAY_HEAD (the head's host name or address), RAY_PORT (6379), RAY_AUTH_TOKEN_PATH (~/.ray/auth_token).
set -euo pipefail

export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
unset RAY_AUTH_TOKEN RAY_ADDRESS

if [ -z "${RAY_HEAD:-}" ]; then
  echo "RAY_HEAD is not set: name the machine that runs head.sh" >&2
  exit 2
fi
if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
  echo "$RAY_AUTH_TOKEN_PATH: no token; copy the head's" >&2
  exit 2
fi
chmod 600 "$RAY_AUTH_TOKEN_PATH"

exec ray start --address="$RAY_HEAD:${RAY_PORT:-6379}" --block --disable-usage-stats "$@"
