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
    # It links CUDA's math libraries, which an import does not call: stand-ins with the same names satisfy the loader.
    mkdir -p "$venv/stubs"
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    find "$site/tensorrt" -name '*.so*' > "$venv/libraries"
    while read -r file; do objdump -p "$file" 2>/dev/null || true; done < "$venv/libraries" |
        awk '/NEEDED/ && /libcublas|libcudnn|libcudart|libcuda[.]|libnvrtc/ {print $2}' | sort -u > "$venv/needed"
    while read -r library; do
        while read -r file; do nm -D --undefined-only "$file" 2>/dev/null || true; done < "$venv/libraries" |
            awk -v at="@$library" 'index($2, at) {print substr($2, 1, index($2, at) - 1)}' | sort -u |
            sed 's/.*/void &(void) {}/' > "$venv/stub.c"
        echo "$library { global: *; };" > "$venv/stub.map"
        ${CC:-cc} -w -shared -fPIC -fno-builtin -Wl,-soname,"$library" -Wl,--version-script,"$venv/stub.map" \
            -o "$venv/stubs/$library" "$venv/stub.c"
    done < "$venv/needed"
    touch "$venv/done"
fi
LD_LIBRARY_PATH=$venv/stubs PYTHONPATH=$root "$venv/bin/python" "$here/tensorrt_surface_check.py"
