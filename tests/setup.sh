#!/bin/sh
# Makes the virtual environment VENV with exactly what requirements.lock names, then the project itself.
# usage: setup.sh VENV
set -eu
venv=$1

fits() { "$1" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

python=
for name in ${PYTHON:-} python3.12 python3.13 python3.11 python3 "$HOME"/.pyenv/versions/3.1[123].*/bin/python3; do
  if command -v "$name" >/dev/null 2>&1 && fits "$name"; then python=$name; break; fi
done
if [ -z "$python" ] && ! command -v uv >/dev/null 2>&1; then
  echo "jetmask needs Python 3.11, 3.12 or 3.13; python3 here is $(python3 --version 2>/dev/null || echo missing)." >&2
  echo "  do: install one of them (Debian 12: apt-get install python3 python3-venv) or uv, which brings its own," >&2
  echo "      then run make again; PYTHON=/path/to/python3.12 make … names one that is not on the PATH" >&2
  exit 2
fi

packages=$(grep -c '^[a-z]' requirements.lock)

# What pip is at, told as it goes: on one line of a terminal, else each twentieth package.
progress() {
  terminal=0
  if [ -t 1 ]; then terminal=1; fi
  awk -v all="$packages" -v terminal="$terminal" '
    /^Collecting / { n++; if (terminal) printf "\r\033[K  %d of %d: %s", n, all, $2; else if (n % 20 == 0) print "  " n " of " all }
    /^Installing / { printf "%s  installing %d packages\n", terminal ? "\r\033[K" : "", all }
    { fflush() }'
}

echo "setting up $venv with ${python:-a Python brought by uv} (once; $packages packages, about 2 GB)" >&2
if command -v uv >/dev/null 2>&1; then
  uv venv -q --allow-existing -p "${python:-3.12}" "$venv"
  uv pip install -q -p "$venv/bin/python" --require-hashes -r requirements.lock
  uv pip install -q -p "$venv/bin/python" --no-deps --no-build-isolation -e .
else
  # An environment that another attempt left half made is made anew.
  "$python" -m venv --clear "$venv" || {
    echo "  do: install the venv module (Debian: apt-get install python3-venv), then run make again" >&2; exit 2; }
  failed=$(mktemp)
  { "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off --require-hashes \
    -r requirements.lock || echo failed > "$failed"; } | progress
  if [ -s "$failed" ]; then rm "$failed"; exit 1; fi
  rm "$failed"
  "$venv/bin/python" -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
fi
"$venv/bin/jetmask" --help >/dev/null
