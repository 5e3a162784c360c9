#!/bin/sh
# Shows the whole chain on this machine: push to dev, push to master, promote to a production host that has no way in.
set -eu

usage() {
  cat >&2 <<'TEXT'
usage: demo.sh [--check]

Installs what is missing (Docker engine, registry, nginx, Python environment), then starts everything for real: a
registry with TLS, keepflow with its local agent, a repository with keepflow's hook, and a second host (own network, own
engine, own nginx) with its own agent. Pushes to dev, pushes to master, promotes; stays up until Ctrl-C, then removes
everything it made. It listens on loopback and on the cable between the two hosts only.

--check  verifies every claim from outside instead of staying up, and ends with 0 or 1; the last line of its output is
         one JSON object
TEXT
  exit 2
}

case "$*" in '' | --check) ;; *) usage ;; esac

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/install-parts.sh" engine registry nginx tools
if [ "$(id -u)" != 0 ]; then
  echo "demo.sh: needs root, for a second host with its own network and engine: sudo $0 $*" >&2
  exit 1
fi
python=$("$root/scripts/python-env.sh")
cd "$root"
exec "$python" -m tests.real.demo "$@"
