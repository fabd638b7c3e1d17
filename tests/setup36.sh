#!/bin/sh
# Makes VENV36, the device's environment (Python 3.6 with JetPack 4's pins and pytest), where there is a Python 3.6.
# Without one it says so and succeeds: the device tests then run under the host's Python alone.
# usage: setup36.sh VENV36
set -eu
venv=$1
lock=tests/requirements-python36.lock
if [ -f "$venv/.ready" ] && [ ! "$lock" -nt "$venv/.ready" ]; then exit 0; fi
python=
for name in ${PYTHON36:-} python3.6 "$HOME"/.pyenv/versions/3.6.*/bin/python3.6; do
  if command -v "$name" >/dev/null 2>&1 && "$name" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 6))' 2>/dev/null
  then python=$name; break; fi
done
if [ -z "$python" ]; then
  echo "no Python 3.6 here (pyenv install 3.6.15 brings one): the device tests run under the host's Python alone" >&2
  exit 0
fi
rm -rf "$venv"
"$python" -m venv "$venv"
# Extra local indexes without Python-version metadata would offer packages too new for 3.6.
PIP_CONFIG_FILE=/dev/null "$venv/bin/python" -m pip install -q --disable-pip-version-check -U "pip<22"
PIP_CONFIG_FILE=/dev/null "$venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: --no-binary paho-mqtt \
  --require-hashes -r "$lock"
touch "$venv/.ready"
