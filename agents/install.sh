#!/bin/sh
# Installs keepflow's agent on this host: a Python environment, the systemd unit, agent.yml. Each line it prints says what
# it did, or that it was so already; running it again changes nothing, and one that was broken off is carried on.
set -eu

usage() {
  cat >&2 <<'TEXT'
usage: install.sh [--wheelhouse DIR] [--config FILE [--replace-config]] [PACKAGE]

PACKAGE is what pip installs: a wheel, a directory, or a name (default: keepflow).
  --wheelhouse DIR    take everything that is needed from the wheels in DIR, for a host without a package index
  --config FILE       lay FILE as agent.yml (else: an example, when there is none yet)
  --replace-config    also when a different agent.yml is there; it is kept beside it

Needs root, Debian or Ubuntu, and Python 3.11 or newer with venv. Installs
  /opt/keepflow                  one environment per package; bin leads to the one in use, so the one before is kept
  /etc/keepflow/agent.yml        what this host allows
  /etc/systemd/system/keepflow-agent.service

environment, all optional:
  ROOT     a directory to install below, instead of /
  PYTHON   the Python to use (python3)

After it:  keepflow agent join https://MASTER   (reads the join token from stdin)
           systemctl enable --now keepflow-agent
           keepflow agent doctor
TEXT
  exit 2
}

wheelhouse='' config='' replace='' package=''
while [ $# -gt 0 ]; do
  case $1 in
    --wheelhouse) [ $# -ge 2 ] || usage; wheelhouse=$2; shift ;;
    --config) [ $# -ge 2 ] || usage; config=$2; shift ;;
    --replace-config) replace=yes ;;
    -*) usage ;;
    *) [ -z "$package" ] || usage; package=$1 ;;
  esac
  shift
done
package=${package:-keepflow}
root=${ROOT:-}
python=${PYTHON:-python3}
opt=$root/opt/keepflow
etc=$root/etc/keepflow
units=$root/etc/systemd/system

fail() {
  echo "install.sh: $1" >&2
  exit 1
}

said() {
  echo "$1: $2"
}

[ -z "$replace" ] || [ -n "$config" ] || usage
case $root in
  '' | /*) ;;
  *) fail "ROOT is an absolute path: $root" ;;
esac
[ "$(id -u)" -eq 0 ] || fail "this needs root"
[ -z "$wheelhouse" ] || [ -d "$wheelhouse" ] || fail "$wheelhouse is no directory"
[ -z "$config" ] || [ -r "$config" ] || fail "$config cannot be read"
command -v "$python" >/dev/null || fail "$python is missing: apt-get install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python is older than 3.11; set PYTHON"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python cannot make environments: apt-get install python3-venv"
[ ! -d "$opt/bin" ] || [ -L "$opt/bin" ] || fail "$opt/bin is a directory that this script did not make; move $opt away"

umask 022
mkdir -p "$opt/venvs" "$units"
[ -d "$etc" ] || mkdir -p "$etc"
chmod 755 "$opt" "$opt/venvs" # the account that jobs run as starts programs from there
if command -v flock >/dev/null; then # two of these at once: the second finds it done
  exec 9<"$opt"
  flock 9
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# pip of an environment, with the wheels of the wheelhouse only when there is one.
pip() {
  environment=$1 verb=$2
  shift 2
  if [ -n "$wheelhouse" ]; then set -- --no-index --find-links "$wheelhouse" "$@"; fi
  "$environment/bin/python" -m pip "$verb" --quiet --disable-pip-version-check "$@" >&2
}

# A wheel of the package: what it is called by, its content, does not depend on where it came from.
case $package in
  *.whl) [ -f "$package" ] || fail "$package is not there"; wheel=$package ;;
  *)
    "$python" -m venv "$scratch/tools"
    mkdir "$scratch/wheel"
    pip "$scratch/tools" wheel --no-deps --wheel-dir "$scratch/wheel" "$package" || fail "no wheel of $package; see above"
    wheel=$(echo "$scratch"/wheel/*.whl)
    ;;
esac
digest=$(sha256sum "$wheel" | cut -c 1-16)
venv=$opt/venvs/$digest

if [ -e "$venv/complete" ]; then
  said package "already so, $(cat "$venv/complete")"
else
  rm -rf "$venv"
  "$python" -m venv "$venv"
  pip "$venv" install "$wheel" || fail "pip could not install $package; see above"
  version=$("$venv/bin/keepflow" version) || fail "the installed keepflow does not start"
  echo "$version in $venv" >"$scratch/complete"
  mv "$scratch/complete" "$venv/complete"
  said package "installed $(cat "$venv/complete")"
fi

# One rename changes which environment is in use; a running agent goes on with its own until it is restarted.
before=$(readlink "$opt/bin" || true)
if [ "$before" = "venvs/$digest/bin" ]; then
  said "in use" "already so, $opt/bin/keepflow"
else
  ln -s "venvs/$digest/bin" "$opt/.bin-$digest.$$"
  mv -T "$opt/.bin-$digest.$$" "$opt/bin"
  said "in use" "now $opt/bin/keepflow${before:+; the one before is in $opt/${before%/bin}}"
fi
# The one before stays, for going back, and so does one that something runs from; older ones go.
for old in "$opt"/venvs/*; do
  if [ "$old" = "$venv" ] || [ "$old/bin" = "$opt/$before" ] || [ "$before" = "venvs/$digest/bin" ]; then continue; fi
  if grep -qsaF "$old/" /proc/[0-9]*/cmdline; then continue; fi
  rm -rf "$old"
done

# Laid beside its place first, so that an interrupted run never leaves half a file.
lay() {
  name=$1 mode=$2 source=$3 target=$4
  if cmp -s "$source" "$target"; then
    said "$name" "already so, $target"
    return 0
  fi
  cp "$source" "$target.new"
  chmod "$mode" "$target.new"
  mv "$target.new" "$target"
  said "$name" "wrote $target"
}

# Where this script's neighbours are: beside it, or inside the package that was just installed.
here=$(dirname "$0")
[ -f "$here/keepflow-agent.service" ] || here=$("$venv/bin/python" - <<'PY'
from keepflow.tools.shipped import shipped
print(shipped("agents", "keepflow-agent.service").parent)
PY
)
"$python" - "$here/keepflow-agent.service" "$root" >"$scratch/unit" <<'PY'
import pathlib, sys
text, root = pathlib.Path(sys.argv[1]).read_text(), sys.argv[2]
for place in ("/opt/keepflow/", "/etc/keepflow/", "/var/lib/keepflow/"):
    text = text.replace(place, root + place)
print(text, end="")
PY
lay unit 644 "$scratch/unit" "$units/keepflow-agent.service"
if [ -z "$root" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

if [ -n "$config" ]; then
  if [ -e "$etc/agent.yml" ] && ! cmp -s "$config" "$etc/agent.yml"; then
    [ -n "$replace" ] || fail "$etc/agent.yml is there and different; --replace-config replaces it (and keeps it beside)"
    cp -p "$etc/agent.yml" "$etc/agent.yml.before"
  fi
  lay agent.yml 600 "$config" "$etc/agent.yml"
elif [ -e "$etc/agent.yml" ]; then
  said agent.yml "already there, $etc/agent.yml"
else
  lay agent.yml 600 "$here/agent.example.yml" "$etc/agent.yml"
fi
