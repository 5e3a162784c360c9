#!/bin/sh
# Installs keepflow's agent on this host: a Python environment, the package, the systemd unit, a first agent.yml.
set -eu

usage() {
  cat >&2 <<'TEXT'
usage: install.sh [PACKAGE]

PACKAGE is what pip installs: a wheel, a directory, or a name (default: keepflow). Needs root and Python 3.11 or newer.
Running it again updates the package and the unit and leaves agent.yml alone.

environment, all optional:
  PREFIX   where the environment lies (/opt/keepflow)
  CONFIG   where agent.yml lies (/etc/keepflow)
  UNITS    where systemd looks for units (/etc/systemd/system)
  PYTHON   the Python to use (python3)

After it:  keepflow agent join https://MASTER   (reads the join token from stdin)
           systemctl enable --now keepflow-agent
TEXT
  exit 2
}

[ $# -le 1 ] || usage
case ${1:-keepflow} in
  -*) usage ;;
esac
package=${1:-keepflow}
prefix=${PREFIX:-/opt/keepflow}
config=${CONFIG:-/etc/keepflow}
units=${UNITS:-/etc/systemd/system}
python=${PYTHON:-python3}

fail() {
  echo "install.sh: $1" >&2
  exit 1
}

[ "$(id -u)" -eq 0 ] || fail "this needs root"
command -v "$python" >/dev/null || fail "$python is missing: apt-get install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python is older than 3.11; set PYTHON"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python cannot make environments: apt-get install python3-venv"

[ -x "$prefix/bin/python" ] || "$python" -m venv "$prefix"
"$prefix/bin/python" -m pip install --quiet --upgrade "$package"
"$prefix/bin/keepflow" version >/dev/null || fail "the installed keepflow does not start"

# Where this script's neighbours are: beside it, or inside the package that was just installed.
here=$(dirname "$0")
[ -f "$here/keepflow-agent.service" ] || here=$("$prefix/bin/python" - <<'PY'
from keepflow.tools.shipped import shipped
print(shipped("agents", "keepflow-agent.service").parent)
PY
)

# Laid beside its place first, so that an interrupted run never leaves half a file.
lay() {
  mode=$1 source=$2 target=$3
  if cmp -s "$source" "$target"; then return 0; fi
  cp "$source" "$target.new"
  chmod "$mode" "$target.new"
  mv "$target.new" "$target"
  echo "install.sh: wrote $target"
}

mkdir -p "$config" "$units"
chmod 755 "$config"
sed "s|/opt/keepflow/|$prefix/|; s|/etc/keepflow/|$config/|" "$here/keepflow-agent.service" >"$units/.keepflow-agent"
lay 644 "$units/.keepflow-agent" "$units/keepflow-agent.service"
rm "$units/.keepflow-agent"
[ -e "$config/agent.yml" ] || lay 644 "$here/agent.example.yml" "$config/agent.yml"
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

echo "install.sh: next, edit $config/agent.yml, then: $prefix/bin/keepflow agent join https://MASTER"
