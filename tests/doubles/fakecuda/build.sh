#!/bin/sh
# Build libcuda.so.1 of fakecuda.c into OUT. usage: build.sh OUT [CUDA_H...]
# cuda.h names the driver's further entry points; they are there for the linker and answer NOT_SUPPORTED.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$1
shift
mkdir -p "$out"
if [ $# -gt 0 ]; then
    ${PYTHON:-python3} - "$here/fakecuda.c" "$@" > "$out/stubs.inc" <<'P'
import re
import sys

have = set(re.findall(r"^API \w+ \**(cu\w+)\(", open(sys.argv[1]).read(), re.M))
names = set()
for header in sys.argv[2:]:
    text = open(header).read()
    names |= set(re.findall(r"CUDAAPI\s+(cu\w+)\s*\(", text)) | set(re.findall(r"#\s*define\s+cu\w+\s+(cu\w+_v\d+)\b", text))
for name in sorted(n for n in names - have if not n.endswith(("_ptds", "_ptsz"))):
    if name + "_v2" in have:
        print('API CUresult %s() __attribute__((alias("%s_v2")));' % (name, name))
    else:
        print("API CUresult %s(void) { return NOT_SUPPORTED; }" % name)
P
    set -- -DSTUBS="\"$out/stubs.inc\""
fi
# Linked aside and renamed: two test runs may build at once.
${CC:-cc} -O1 -shared -fPIC -fvisibility=hidden -Wall -Wno-unused -Wno-attribute-alias "$@" \
    -Wl,-soname,libcuda.so.1 -o "$out/.libcuda.$$" "$here/fakecuda.c" -ldl -lpthread
mv "$out/.libcuda.$$" "$out/libcuda.so.1"
ln -sf libcuda.so.1 "$out/libcuda.so"
