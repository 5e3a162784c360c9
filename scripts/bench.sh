#!/bin/sh
# Installs what is missing and measures keepflow beside the bare minimum.
set -eu

usage() {
  cat <<'TEXT'
usage: bench.sh [--list] [NAME...]

Measures keepflow and its floor in turn, in the same run: a table on stderr, one JSON line per figure on stdout:
{"bench", "unit", "floor", "keepflow", "ratio", "min", "max", "n"}, medians and keepflow's spread. --list prints the names.
TEXT
}

if [ "${1:-}" = --help ]; then
  usage
  exit 0
fi

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/install-parts.sh" engine registry nginx tools bench
python=$("$root/scripts/python-env.sh")
cd "$root"
exec "$python" -m tests.bench "$@"
