#!/usr/bin/env bash
# Goes on with a run if its folder holds one, else starts it: for whatever submits the same job again after a loss.
#   examples/cluster/start_or_resume.sh /shared/runs/one --config examples/convai2.yaml ...
set -euo pipefail

if [ $# = 0 ]; then
  echo "usage: $0 RUN_DIR [--name value ...]" >&2
  exit 2
fi
run=$1
shift
cd "$(dirname "$0")/../.."
if [ -e "$run/config.yaml" ]; then
  exec "${PYTHON:-python}" launch.py train --resume "$run" # it knows its settings
fi
exec "${PYTHON:-python}" launch.py train --run_dir "$run" "$@"
