#!/bin/sh
# Install a lock into the venv and leave out what nothing here reads: install.sh LOCK
#
# Bytecode is made once, because a container whose root file system is read-only could not keep what it compiles.
set -eu
pip --python /venv/bin/python install --no-compile --require-hashes --only-binary :all: --requirement "$1"
cd /venv/lib/python3.11/site-packages
rm -rf torch/test torch/include torch/share torch/utils/benchmark nvidia/*/include nvidia/*/*/include
find . -name '*.a' -delete
python -m compileall -q -j 0 --invalidation-mode unchecked-hash . || true
