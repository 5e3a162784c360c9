#!/bin/sh
# Installs the programs that keepflow's tests, demo and benches stand on, as far as they are missing.
set -eu

usage() {
  cat >&2 <<'TEXT'
usage: install-parts.sh [--check] [all|PART...]

parts:
  engine    the docker engine and its command line
  compose   docker-compose, where the engine has no Compose of its own
  registry  the docker registry
  nginx     nginx
  ssh       the OpenSSH server program
  postgres  the PostgreSQL server programs
  browser   Chromium
  sources   Git LFS and Subversion
  lint      shellcheck
  tools     git, curl, ip, ss, iptables, flock, nsenter, busybox, and Python's venv
  bench     wrk

Installs with apt what is missing (all parts without arguments). --check only looks. No service is started: everything
that needs one starts it by itself. Without root or without apt it says what is missing and how to get it, and ends
with 1.
TEXT
  exit 2
}

ALL="engine compose registry nginx ssh postgres browser sources lint tools bench"

# PROGRAM:PACKAGE for every program of a part; a word before "|" stands for either of the two.
programs() {
  case $1 in
    engine) echo "dockerd:docker.io docker:docker.io docker-init:tini iptables:iptables" ;;
    compose) echo "docker-compose|/usr/libexec/docker/cli-plugins/docker-compose:docker-compose" ;;
    registry) echo "docker-registry|registry:docker-registry" ;;
    nginx) echo "nginx:nginx-light" ;;
    ssh) echo "sshd:openssh-server sudo:sudo" ;;
    postgres) echo "initdb:postgresql" ;;
    browser) echo "chromium|google-chrome:chromium" ;;
    sources) echo "git-lfs:git-lfs svn:subversion svnadmin:subversion" ;;
    lint) echo "shellcheck:shellcheck" ;;
    tools)
      echo "git:git curl:curl ip:iproute2 ss:iproute2 iptables:iptables flock:util-linux nsenter:util-linux setpriv:util-linux"
      echo "busybox:busybox-static venv:python3-venv systemd-analyze:systemd"
      ;;
    bench) echo "wrk:wrk" ;;
    *) return 1 ;;
  esac
}

found() {
  case $1 in
    *"|"*) found "${1%%|*}" || found "${1#*|}" ;;
    initdb) command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 ;;
    venv) found_venv ;;
    *) PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
  esac
}

# A Python that can make environments; python-env.sh says which versions will do.
found_venv() {
  for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    if command -v "$python" >/dev/null && "$python" -c 'import ensurepip, venv' 2>/dev/null; then return 0; fi
  done
  return 1
}

check_only=no
if [ "${1:-}" = --check ]; then
  check_only=yes
  shift
fi
[ $# -gt 0 ] || set -- all
parts=
for part; do
  case $part in
    all) parts="$parts $ALL" ;;
    *)
      programs "$part" >/dev/null || usage
      parts="$parts $part"
      ;;
  esac
done

missing=
packages=
look() {
  missing=
  packages=
  for part in $parts; do
    for pair in $(programs "$part"); do
      if ! found "${pair%%:*}"; then
        case " $missing " in *" ${pair%%:*} "*) ;; *) missing="$missing ${pair%%:*}" ;; esac
        case " $packages " in *" ${pair#*:} "*) ;; *) packages="$packages ${pair#*:}" ;; esac
      fi
    done
  done
}

explain_and_end() {
  {
    echo "install-parts.sh: $1"
    echo "  missing:$missing"
    if command -v apt-get >/dev/null; then
      echo "  get them:  sudo apt-get update && sudo apt-get install --no-install-recommends --yes$packages"
    else
      echo "  get them from your distribution; on Debian and Ubuntu the packages are:$packages"
    fi
  } >&2
  exit 1
}

# Packages of services start them when they are installed. Nothing here wants a service on port 80 or 5432: while we
# install, the standard hook forbids it.
POLICY=/usr/sbin/policy-rc.d
forbid_starting() {
  if [ ! -e "$POLICY" ] || grep -q 'install-parts.sh' "$POLICY"; then
    trap 'rm -f "$POLICY"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\n# left by install-parts.sh: forbids starting services\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
  fi
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086 # a list of package names of ours
  set -- apt-get install --yes --quiet --no-install-recommends -o DPkg::Lock::Timeout=300 $packages
  echo "+ $*" >&2
  "$@" >&2 || { apt-get update --quiet >&2 && "$@" >&2; }
}

look
[ -n "$missing" ] || exit 0
[ "$check_only" = no ] || explain_and_end "parts are missing"
command -v apt-get >/dev/null || explain_and_end "this system has no apt"
[ "$(id -u)" = 0 ] || explain_and_end "only root can install"
forbid_starting
install_packages || explain_and_end "apt could not install everything"
look
[ -z "$missing" ] || explain_and_end "some programs are still missing after the installation"
