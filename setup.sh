#!/bin/sh
# Make .venv beside this file and install rlcas into it with the versions of constraints.txt.
set -eu
cd "$(dirname "$0")"
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "rlcas needs Python 3.11 or newer, but $python is $("$python" --version 2>&1): set PYTHON=python3.11" >&2
    exit 2
}

echo "Installing into .venv (once, about 5 GB) ..."
if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --allow-existing --python "$python" .venv
    uv=uv
else
    "$python" -m venv .venv
    uv=.venv/bin/uv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check uv || uv=
fi

# Byte code is compiled now: without it every Ray worker starts two to three times slower.
if [ -n "$uv" ]; then
    "$uv" pip install --quiet --python .venv/bin/python --compile-bytecode -c constraints.txt -e ".[dev]"
else
    .venv/bin/python -m pip install --quiet -c constraints.txt -e ".[dev]"
fi
touch .venv/installed
