#!/bin/sh
# What %post does in every image: the packages of the lock into /opt/star1/venv, every file of them checked against its hash.
# Nothing may depend on when or how often it ran: a rebuild gives the same bytes.
set -eu
cd /opt/star1
umask 022
if [ -n "$PACKAGES" ]; then
    apt-get -q update
    # shellcheck disable=SC2086 (words are meant)
    apt-get -q install -y --no-install-recommends $PACKAGES
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/aux-cache /var/log/*
fi
python3 -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else f"base image: Python {sys.version.split()[0]}; expected 3.11")'
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export HOME="$scratch"  # caches go with it
python3 -m venv "$scratch/installer"
"$scratch/installer/bin/python" -m pip install -q --disable-pip-version-check --no-cache-dir --no-deps --require-hashes \
    --only-binary :all: -r installer.lock
uv=$scratch/installer/bin/uv
"$uv" venv -q --no-config --python "$(command -v python3)" venv
# Two packages are published as source only; they are pure Python so, and made by the locked setuptools.
export DS_BUILD_OPS=0
"$uv" pip install -q --no-config --python venv/bin/python --no-deps --require-hashes --build-constraints installer.lock \
    --link-mode copy --only-binary :all: --no-binary deepspeed --no-binary antlr4-python3-runtime -r packages.lock
# Checked by nobody at import, so it holds no time of day; without it every job would compile torch anew.
PYTHONHASHSEED=0 venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash venv/lib || true
