#!/bin/sh
# Installs NVIDIA's real TensorRT 8.5.3.1 (about 900 MB, not in CI) and holds our subclasses against it.
# usage: tensorrt_surface.sh [CACHE]     PYTHON36 or python3.6: Python 3.6 (as on a Nano), else a Python up to 3.10.
# Needs no GPU: the import, subclassing and enums work without one; Builder and Runtime do not.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${1:-${JETMASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/jetmask}}
python=
for name in ${PYTHON36:-} "$HOME"/.pyenv/versions/3.6.*/bin/python3.6 python3.6 python3.10 python3.9 python3.8; do
    if "$name" -c "import venv" >/dev/null 2>&1; then python=$name; break; fi
done
if [ -z "$python" ]; then
    echo "no Python from 3.6 to 3.10 here: TensorRT 8.5.3 has wheels for these only" >&2
    exit 2
fi
venv=$cache/tensorrt-8.5.3
if [ ! -e "$venv/done" ]; then
    mkdir -p "$cache"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install -q -U "pip<22"
    "$venv/bin/python" -m pip install -q --no-deps numpy==1.19.5 tensorrt==8.5.3.1
    # It links CUDA's math libraries, which an import does not call: empty stand-ins satisfy the loader.
    mkdir -p "$venv/stubs"
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    for library in $(find "$site/tensorrt" -name '*.so*' -exec sh -c 'objdump -p "$1" 2>/dev/null' _ {} \; |
                     awk '/NEEDED/ && /libcublas|libcudnn|libcudart|libcuda\.|libnvrtc/ {print $2}' | sort -u); do
        echo "" | ${CC:-cc} -shared -x c - -Wl,-soname,"$library" -o "$venv/stubs/$library"
    done
    touch "$venv/done"
fi
LD_LIBRARY_PATH=$venv/stubs PYTHONPATH=$root "$venv/bin/python" "$here/tensorrt_surface_check.py"
