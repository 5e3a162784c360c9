#!/bin/sh
# Makes a new image serve on this machine without an agent. The old one goes only when the new one is well.
set -eu

usage() {
  cat >&2 <<'TEXT'
usage: restart-server.sh dev|test

Starts NAME/ENV:bNUMBER in the free one of two slots, kf-SERVICE-main-blue and kf-SERVICE-main-green, each with a fixed
address on the network kf-SERVICE-main-net. When it answers, traffic is switched by keepflow's flags if this service has
any (else the address is printed, for your own proxy), and the old container is stopped and kept. If the new one does
not become well, it is removed and the old one is as it was.

environment, all optional:
  BUILD_NUMBER      NUMBER (0)
  KEEPFLOW_IMAGE    NAME (keepwork)
  KEEPFLOW_SERVICE  SERVICE (NAME-ENV)
  PORT              port inside the container (8080)
  VOLUMES           named volumes, as in "log:/project/log database:/project/database" (log:/project/log)
  HEALTH_PATH       what must answer three times in a row (/)
  HEALTH_HOST       host name to ask for (localhost)
  HEALTH_SECONDS    time for that (60)
  DRAIN_SECONDS     time for requests under way on the old one, after the switch (10)
  STOP_SECONDS      time between SIGTERM and SIGKILL (30)
  NETWORKS          pool of slot networks (10.213.0.0/16)
  FLAGS             keepflow's flags (/var/lib/keepflow/sw)

exit codes: 0 the new one serves; 2 usage; 3 no such image; 4 the new one did not become well; 5 another restart is
under way; 7 refused, an agent manages this service; 1 anything else. Except with 0, what served before still does.
TEXT
  exit 2
}

fail() {
  echo "restart-server.sh: $1" >&2
  exit "${2:-1}"
}

[ $# -eq 1 ] || usage
environment=$1
case $environment in dev | test) ;; *) usage ;; esac

number=${BUILD_NUMBER:-0}
name=${KEEPFLOW_IMAGE:-keepwork}
service=${KEEPFLOW_SERVICE:-${name##*/}-$environment}
case $number in '' | *[!0-9]*) fail "BUILD_NUMBER is not a number: $number" 2 ;; esac
case $name in '' | -* | *[!a-z0-9._/-]*) fail "KEEPFLOW_IMAGE is not the name of an image: $name" 2 ;; esac
case $service in '' | -* | *- | *[!a-z0-9-]*) fail "KEEPFLOW_SERVICE is not the name of a service: $service" 2 ;; esac
image=$name/$environment:b$number
port=${PORT:-8080}
pool=${NETWORKS:-10.213.0.0/16}
prefix=kf-$service-main
flags=${FLAGS:-/var/lib/keepflow/sw}/$prefix

say() { echo "+ $*" >&2; }

# `docker container inspect` takes the exact name, also of a stopped one; a name filter would also find its siblings.
ask() { docker container inspect --format "$2" "$prefix-$1" 2>/dev/null; }

exists() { ask "$1" '{{.Id}}' >/dev/null; }

runs() { [ "$(ask "$1" '{{.State.Running}}')" = true ]; }

refuse_agents_service() {
  owners=$(docker container ls --all --filter "label=keepflow.service=$service" --filter label=keepflow.instance=main \
    --format '{{.Label "keepflow.owner"}}')
  for slot in blue green; do
    owners="$owners $(ask "$slot" '{{index .Config.Labels "keepflow.owner"}}' || :)"
  done
  for owner in $owners; do
    case $owner in agent:*) fail "$service is managed by ${owner#agent:}: deploy it through keepflow" 7 ;; esac
  done
}

# The flag says who serves. Without flags it is the one that runs, and of two the older: the newer never finished.
serving_slot() {
  for slot in blue green; do
    if [ -e "$flags/cur/$slot" ] && runs "$slot"; then
      echo "$slot"
      return
    fi
  done
  if runs blue && runs green; then
    printf '%s blue\n%s green\n' "$(ask blue '{{.State.StartedAt}}')" "$(ask green '{{.State.StartedAt}}')" |
      sort | sed -n '1s/.* //p'
  elif runs blue; then
    echo blue
  elif runs green; then
    echo green
  fi
}

# Every network this machine knows, as ADDRESS/BITS lines: its routes, and what the engine gave away.
known_networks() {
  ip -4 route show table all | awk '{ print ($1 ~ /^[0-9]/ || $1 == "default") ? $1 : $2 }'
  docker network ls --quiet | while read -r id; do
    docker network inspect --format '{{range .IPAM.Config}}{{println .Subnet}}{{end}}' "$id" 2>/dev/null || :
  done
}

# Prints the last free /28 of the pool (agents take theirs from its start).
free_subnet() {
  known_networks | awk -v pool="$pool" '
    function width(text, pair) { return split(text, pair, "/") == 2 ? 2 ^ (32 - pair[2]) : 1 }
    function low(text, part) {
      split(text, part, /[.\/]/)
      part[0] = ((part[1] * 256 + part[2]) * 256 + part[3]) * 256 + part[4]
      return part[0] - part[0] % width(text)
    }
    /^[0-9.]+(\/[0-9]+)?$/ && !/^0\.0\.0\.0/ {
      count++
      first[count] = low($1)
      last[count] = first[count] + width($1) - 1
    }
    END {
      for (base = low(pool) + width(pool) - 16; base >= low(pool); base -= 16) {
        taken = 0
        for (i = 1; i <= count && !taken; i++) taken = base <= last[i] && base + 15 >= first[i]
        if (!taken) {
          printf "%d.%d.%d.%d/28\n", base / 16777216, int(base / 65536) % 256, int(base / 256) % 256, base % 256
          exit
        }
      }
    }'
}

subnet_of_network() {
  docker network inspect --format '{{range .IPAM.Config}}{{.Subnet}}{{end}}' "$prefix-net" 2>/dev/null
}

ensure_network() {
  for _ in 1 2 3; do # between looking and taking, somebody else may take it
    ! subnet_of_network >/dev/null || return 0
    subnet=$(free_subnet)
    [ -n "$subnet" ] || fail "no free network in $pool"
    say "docker network create --subnet $subnet $prefix-net"
    docker network create --subnet "$subnet" --label "keepflow.service=$service" --label keepflow.instance=main \
      --label keepflow.owner=script "$prefix-net" >/dev/null || sleep 1
  done
  subnet_of_network >/dev/null || fail "the network $prefix-net could not be made"
}

# The fixed address of a slot: second or third of the network.
address_of() {
  place=3
  [ "$1" != blue ] || place=2
  subnet_of_network | awk -F '[./]' -v place="$place" '{ print $1 "." $2 "." $3 "." $4 + place }'
}

start_new() {
  set --
  for volume in ${VOLUMES-log:/project/log}; do
    set -- "$@" --volume "$prefix-${volume%%:*}:${volume#*:}"
  done
  say "docker run --name $prefix-$new --ip $address $image $environment"
  docker run --detach --init --restart no --name "$prefix-$new" --network "$prefix-net" --ip "$address" "$@" \
    --label "keepflow.service=$service" --label keepflow.instance=main --label "keepflow.slot=$new" \
    --label keepflow.owner=script --label "keepflow.build=$number" "$image" "$environment" >/dev/null
}

answers() {
  host="Host: ${HEALTH_HOST:-localhost}"
  if command -v curl >/dev/null; then
    curl --silent --fail --output /dev/null --noproxy '*' --max-time 2 --header "$host" "$1"
  else
    wget --quiet --output-document=/dev/null --no-proxy --tries=1 --timeout=2 --header "$host" "$1"
  fi
}

# Succeeds after three good answers in a row; says why not as soon as it is clear that there will be none.
wait_until_well() {
  deadline=$(($(date +%s) + ${HEALTH_SECONDS:-60}))
  good=0
  while [ "$good" -lt 3 ]; do
    if ! runs "$new"; then
      why="it ended with exit code $(ask "$new" '{{.State.ExitCode}}')"
      return 1
    fi
    if answers "http://$address:$port${HEALTH_PATH:-/}"; then
      good=$((good + 1))
    elif [ "$(date +%s)" -ge "$deadline" ]; then
      why="no good answer from http://$address:$port${HEALTH_PATH:-/} within ${HEALTH_SECONDS:-60} s"
      return 1
    else
      good=0
      sleep 0.1
    fi
  done
}

remove_new() {
  docker logs --tail 20 "$prefix-$new" 2>&1 | sed 's/^/| /' >&2 || :
  docker rm --force "$prefix-$new" >/dev/null 2>&1 || :
}

# One rename moves all traffic. A state directory is complete before it gets its name, and never changes.
switch_flags() {
  last=$(find "$flags/states" -mindepth 1 -maxdepth 1 -name '[0-9]*' | sed 's|.*/0*||; s|-.*||' | sort -n | tail -n 1)
  state=states/$(printf %04d $((${last:-0} + 1)))-$new
  mkdir -m 755 "$flags/$state.$$"
  : >"$flags/$state.$$/$new"
  mv "$flags/$state.$$" "$flags/$state"
  ln -s "$state" "$flags/.cur.$$"
  sync "$flags/states" "$flags/$state"
  mv -T "$flags/.cur.$$" "$flags/cur"
  sync "$flags"
  say "flag $flags/cur -> $state"
}

# Waits until nobody is connected to the old address any more, as far as this machine's kernel knows.
drain() {
  deadline=$(($(date +%s) + ${DRAIN_SECONDS:-10}))
  while [ "$(date +%s)" -lt "$deadline" ]; do
    connected=$(ss --no-header --tcp --numeric state established dst "$1") || connected=unknown
    [ -n "$connected" ] || return 0
    sleep 0.2
  done
}

# A retired container keeps its logs and can be started again by hand, but never comes back by itself.
retire() {
  docker update --restart no "$prefix-$1" >/dev/null
  say "docker stop $prefix-$1"
  docker stop --time "${STOP_SECONDS:-30}" "$prefix-$1" >/dev/null
}

locks=/run/lock
[ -d "$locks" ] || locks=/tmp
exec 9>"$locks/$prefix.lock"
flock --wait 60 9 || fail "another restart of $service is under way" 5

docker version >/dev/null 2>&1 || fail "the docker engine does not answer"
refuse_agents_service
docker image inspect "$image" >/dev/null 2>&1 ||
  fail "no image $image: run build-image.sh $environment first; nothing was touched" 3

old=$(serving_slot)
new=blue
[ "$old" != blue ] || new=green
if exists "$new"; then # retired earlier, or left by a restart that was broken off
  if runs "$new"; then retire "$new"; fi
  docker rm --force "$prefix-$new" >/dev/null
fi
ensure_network
address=$(address_of "$new")

trap 'remove_new; exit 143' TERM
trap 'remove_new; exit 130' INT
why="it could not be started"
if ! start_new || ! wait_until_well; then
  remove_new
  fail "$image did not become well: $why; ${old:-nothing} serves as before" 4
fi
docker update --restart unless-stopped "$prefix-$new" >/dev/null
trap - TERM INT

if [ -d "$flags/states" ]; then
  switch_flags
  if [ -n "$old" ]; then drain "$(address_of "$old")"; fi
fi
if [ -n "$old" ]; then retire "$old"; fi
echo "$prefix-$new serves $image at http://$address:$port"
