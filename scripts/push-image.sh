#!/bin/sh
# Pushes the image that build-image.sh made to the registry.
set -eu

usage() {
  cat >&2 <<'TEXT'
usage: push-image.sh test

Pushes NAME/test:bNUMBER as REGISTRY/NAME:bNUMBER and prints the digest the registry gave it. Nothing is built.

environment:
  KEEPFLOW_REGISTRY  address of the registry, as in registry.example.org:5000 (required)
  BUILD_NUMBER       NUMBER (0)
  KEEPFLOW_IMAGE     NAME (keepwork)
  DOCKER_CONFIG      directory of the login to use (docker's own)
  KEEPFLOW_OUTPUT    file to which pushed=REGISTRY/NAME:bNUMBER is appended
TEXT
  exit 2
}

fail() {
  echo "push-image.sh: $1" >&2
  exit "${2:-1}"
}

[ "$*" = test ] || usage
number=${BUILD_NUMBER:-0}
name=${KEEPFLOW_IMAGE:-keepwork}
registry=${KEEPFLOW_REGISTRY:-}
[ -n "$registry" ] || fail "KEEPFLOW_REGISTRY is not set: which registry?" 2
case $number in '' | *[!0-9]*) fail "BUILD_NUMBER is not a number: $number" 2 ;; esac
case $name in '' | -* | *[!a-z0-9._/-]*) fail "KEEPFLOW_IMAGE is not the name of an image: $name" 2 ;; esac
case $registry in -* | *[!A-Za-z0-9.:_-]*) fail "KEEPFLOW_REGISTRY is not an address: $registry" 2 ;; esac
built=$name/test:b$number
pushed=$registry/$name:b$number

docker image inspect "$built" >/dev/null 2>&1 || fail "no image $built: run build-image.sh test first" 3

work=$(mktemp -d "${TMPDIR:-/tmp}/push-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

docker tag "$built" "$pushed"
# The progress goes to the log as it comes; the file says whether the push itself, and not tee, ended well.
{ docker push "$pushed" && : >"$work/done"; } | tee "$work/said"
[ -e "$work/done" ] || fail "the push of $pushed failed"
digest=$(sed -n 's/.*digest: \(sha256:[0-9a-f]*\).*/\1/p' "$work/said" | tail -n 1)
[ -n "$digest" ] || fail "the registry told no digest for $pushed"
if [ -n "${KEEPFLOW_OUTPUT:-}" ]; then
  echo "pushed=$pushed" >>"$KEEPFLOW_OUTPUT"
fi
echo "pushed $pushed@$digest"
