#!/bin/sh
# Makes the Python environment that the counterparts run in, once: sh setup.sh FOLDER
set -eu
venv=$1
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$venv"
# Tests run beside each other, and the first makes it for all.
exec 9> "$venv.lock"
flock 9
if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
    python3 -m venv --clear "$venv" || { echo "python3-venv is missing: make test-setup installs it"; exit 1; }
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/requirements.txt"
fi
