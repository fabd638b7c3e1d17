#!/bin/sh
# Build a real pycuda for PYTHON on the stand-in driver of fakecuda/, once: about 75 s of compiling, then cached.
# usage: build_pycuda.sh PYTHON [CACHE]     CACHE: default $JETMASK_CACHE, else ~/.cache/jetmask
# Prints the folder with site/ (pycuda and what it imports, for PYTHONPATH) and lib/ (libcuda.so.1, for LD_LIBRARY_PATH).
# Needs a C++ compiler, PYTHON's headers and a package index.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=$1
cache=${2:-${JETMASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/jetmask}}
tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
case $tag in
cp36)   # 2022.1 is the last pycuda for Python 3.6: what a Nano runs
    version=2022.1
    tools="pip<22"
    needs="pytools==2021.2.9 appdirs==1.4.4 decorator==5.1.1 mako==1.1.6 markupsafe==2.0.1 six==1.16.0 dataclasses==0.8 numpy==1.19.5 setuptools==59.6.0 wheel==0.37.1" ;;
*)
    version=2026.1
    tools="pip"
    needs="pytools==2025.2.5 platformdirs==4.5.0 siphash24==1.8 typing-extensions==4.15.0 mako==1.3.10 markupsafe==3.0.3 numpy==2.4.6 setuptools==80.9.0 wheel==0.45.1" ;;
esac
out=$cache/pycuda-$version-$tag-$(cat "$here/fakecuda/fakecuda.c" "$here/fakecuda/build.sh" | sha256sum | cut -c1-12)
if [ ! -e "$out/done" ]; then
    mkdir -p "$cache"
    exec 9> "$out.lock"
    flock 9
fi
if [ ! -e "$out/done" ]; then
    rm -rf "$out"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    {
        "$python" -m venv "$work/venv"
        pip="$work/venv/bin/python -m pip"
        $pip install -q -U "$tools"
        $pip install -q $needs
        $pip download -q --no-deps --only-binary :all: -d "$work" nvidia-cuda-runtime-cu11==11.8.89
        "$python" -m zipfile -e "$work"/nvidia_cuda_runtime_cu11-*.whl "$work/headers"
        include=$work/headers/nvidia/cuda_runtime/include
        PYTHON=$python sh "$here/fakecuda/build.sh" "$out/lib" "$include/cuda.h" "$here/fakecuda/shim/cudaProfiler.h"
        $pip download -q --no-deps --no-binary :all: --no-build-isolation -d "$work" "pycuda==$version"
        mkdir "$work/source"
        tar xzf "$work"/pycuda-*.tar.gz -C "$work/source" --strip-components=1
        cd "$work/source"
        cat > siteconf.py <<S
BOOST_INC_DIR = []; BOOST_LIB_DIR = []; BOOST_COMPILER = "gcc43"; USE_SHIPPED_BOOST = True
BOOST_PYTHON_LIBNAME = []; BOOST_THREAD_LIBNAME = []
CUDA_TRACE = False; CUDA_ROOT = "/nonexistent"; CUDA_ENABLE_GL = False; CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = ["$out/lib"]; CUDADRV_LIBNAME = ["cuda"]
CUDART_LIB_DIR = []; CUDART_LIBNAME = []; CURAND_LIB_DIR = []; CURAND_LIBNAME = []
CUDA_INC_DIR = ["$here/fakecuda/shim", "$include"]; CXXFLAGS = ["-O0", "-g0"]; LDFLAGS = []
S
        $pip wheel -q --no-deps --no-build-isolation -w "$work/wheel" .
        mkdir -p "$out/site"
        # numpy, setuptools and wheel come from the interpreter's own environment
        $pip install -q --no-deps --target "$out/site" "$work"/wheel/pycuda-*.whl \
            $(for need in $needs; do case $need in numpy==*|setuptools==*|wheel==*) ;; *) echo "$need" ;; esac; done)
        cd "$work"  # not the source folder, whose pycuda has no compiled part
        LD_LIBRARY_PATH=$out/lib PYTHONPATH=$out/site "$work/venv/bin/python" -c 'import pycuda.driver as d; d.init(); print(d.Device(0).name())'
        touch "$out/done"
    } >&2
fi
echo "$out"
