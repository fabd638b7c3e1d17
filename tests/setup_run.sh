#!/bin/sh
# Makes the small environment VENV: what `jetmask run`, `detect` and `evaluate` need, and no TensorFlow.
# usage: setup_run.sh VENV
set -eu
venv=$1
if [ -f "$venv/.ready" ] && [ ! pyproject.toml -nt "$venv/.ready" ]; then exit 0; fi
python=
for name in ${PYTHON:-} python3.12 python3.13 python3.11 python3 "$HOME"/.pyenv/versions/3.1[123].*/bin/python3; do
  if command -v "$name" >/dev/null 2>&1 &&
    "$name" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
    python=$name
    break
  fi
done
if [ -z "$python" ]; then
  echo "jetmask needs Python 3.11, 3.12 or 3.13; python3 here is $(python3 --version 2>/dev/null || echo missing)." >&2
  exit 2
fi
# The base packages alone, at the versions and with the hashes of requirements.lock.
names='numpy opencv-python-headless onnxruntime prometheus-client pyyaml flatbuffers packaging protobuf setuptools'
echo "setting up $venv with $python (once, about 80 MB to fetch): $names" >&2
"$python" -m venv --clear "$venv"
lock=$venv/base.lock
awk -v names=" $names " '/^[a-z]/ { split($1, part, "=="); keep = index(names, " " part[1] " ") } keep' requirements.lock > "$lock"
"$venv/bin/python" -m pip install --disable-pip-version-check -q --require-hashes -r "$lock"
"$venv/bin/python" -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
touch "$venv/.ready"
