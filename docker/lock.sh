#!/usr/bin/env bash
# Renew the images' locks, every package with its hashes: docker/lock.sh [arguments of uv pip compile]
#
# After a change of pyproject.toml or constraints.txt, whose versions the locks take over; what constraints.txt does not
# name stays as it is unless --upgrade is given. Needs uv, and reads only the indexes. PyPI has no PyTorch for Linux
# without CUDA, so the lock for CPUs takes it from PyTorch's own index; WHEELS=FOLDER takes it from a folder instead.
set -euo pipefail
cd "$(dirname "$0")/.."

lock() { # lock NAME ARGUMENT ...
  local out=docker/requirements-$1.txt
  shift
  UV_CUSTOM_COMPILE_COMMAND=docker/lock.sh uv pip compile pyproject.toml --quiet --constraint constraints.txt \
    --generate-hashes --no-annotate --python-version 3.11 --python-platform linux --output-file "$out" "$@"
}

cpu=(--torch-backend cpu)
[[ -z ${WHEELS:-} ]] || cpu=(--find-links "$WHEELS")
lock cpu --extra cpu "${cpu[@]}" "$@"
lock gpu --extra gpu "$@"
lock train --extra gpu --extra train "$@"
