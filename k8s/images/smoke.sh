#!/usr/bin/env bash
# Starts the whole system from the images (TAG, 0.1.0 by default) with compose.yaml, and takes a workspace through
# its life. Everything made carries a label of this run and is removed, whatever happens.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

k8s/images/offline.sh smoke

# The runner of compose.yaml reads YAML.
venv=$PWD/.windlass/images/venv
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import yaml' 2>/dev/null ||
    "$venv/bin/pip" install -q --disable-pip-version-check PyYAML==6.0.3 >&2
exec "$venv/bin/python" k8s/images/smoke.py "$@"
