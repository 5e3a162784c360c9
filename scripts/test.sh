#!/bin/sh
# Installs what is missing and runs the tests.
set -eu

if [ "${1:-}" = --help ]; then
  cat <<'TEXT'
usage: test.sh [PYTEST ARGUMENT...]

Installs missing programs (scripts/install-parts.sh) and the Python environment (scripts/python-env.sh), then runs
pytest with the arguments given; without any, the whole suite on real parts, with one worker more than there are
processors. A part that cannot be installed is named, and its tests are skipped; with CI=true that is a failure.
TEXT
  exit 0
fi

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
root=$(cd "$(dirname "$0")/.." && pwd)
if ! "$root/scripts/install-parts.sh" engine compose registry nginx ssh postgres browser sources lint tools; then
  [ "${CI:-}" != true ] || exit 1
  echo "test.sh: going on without; the tests that need them will be skipped" >&2
fi
python=$("$root/scripts/python-env.sh")
cd "$root"
[ $# -gt 0 ] || set -- --numprocesses $(($(nproc) + 1)) # what stands on the host mostly waits
exec "$python" -m pytest "$@"
