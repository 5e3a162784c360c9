#!/bin/sh
# Makes the Python environment of this checkout, .venv, and prints the path of its python.
set -eu

usage() {
  cat >&2 <<'TEXT'
usage: python-env.sh

Makes .venv beside pyproject.toml with keepflow installed from this checkout ([master,postgres,dev]); does nothing when
pyproject.toml has not changed since. Prints the path of the environment's python; everything else goes to stderr.

environment: PYTHON  the Python to use (default: the first of python3, python3.13, … python3.11 that is >= 3.11)
TEXT
  exit 2
}

[ $# -eq 0 ] || usage
root=$(cd "$(dirname "$0")/.." && pwd)
env=$root/.venv

fail() {
  echo "python-env.sh: $1" >&2
  exit 1
}

fits() {
  command -v "$1" >/dev/null && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

choose_python() {
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    if fits "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail "keepflow needs Python 3.11 or newer: install it, or set PYTHON to one"
}

# What the environment depends on: the dependency list, where it lies, and which Python made it.
fingerprint() {
  { cat "$root/pyproject.toml"; echo "$root"; "$1" -c 'import sys; print(sys.version, sys.base_prefix)'; } | sha256sum
}

make_environment() {
  echo "+ $python -m venv .venv && pip install --editable '.[master,postgres,dev]'" >&2
  rm -rf "$env"
  "$python" -m venv "$env" >&2 ||
    fail "$python cannot make environments: install Python's venv (scripts/install-parts.sh tools)"
  "$env/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root""[master,postgres,dev]" >&2 ||
    fail "pip could not install keepflow; see above"
  fingerprint "$python" >"$env/stamp"
}

python=$(choose_python)
if command -v flock >/dev/null; then # two of these at once: the second finds it done
  exec 9<"$root/pyproject.toml"
  flock 9
fi
if [ ! -x "$env/bin/python" ] || [ "$(fingerprint "$python")" != "$(cat "$env/stamp" 2>/dev/null)" ]; then
  make_environment
fi
echo "$env/bin/python"
