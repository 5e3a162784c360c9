#!/bin/sh
# Builds the image of a checkout.
set -eu

usage() {
  cat >&2 <<'TEXT'
usage: build-image.sh dev|test

  dev    builds the checkout as it is
  test   first compresses the code: builds Dockerfile.dist, whose container writes the finished tree as a tar

Builds Dockerfile and names the image NAME/dev:bNUMBER or NAME/test:bNUMBER. The checkout is only read: everything is
put together in a temporary copy without .git, with the files of JENKINS_HOME/project_secret_files/NAME laid over it and
a file build-info (commit=…, build=…) added.

environment, all optional:
  BUILD_NUMBER     NUMBER (0)
  KEEPFLOW_IMAGE   NAME (keepwork)
  WORKSPACE        the checkout (the directory above this script)
  GIT_COMMIT       what goes into build-info (asked of git)
  JENKINS_HOME     see above
  BASE, COMPRESS   build arguments: base images of Dockerfile and of Dockerfile.dist
  KEEPFLOW_OUTPUT  file to which image=NAME/ENV:bNUMBER is appended
TEXT
  exit 2
}

fail() {
  echo "build-image.sh: $1" >&2
  exit "${2:-1}"
}

[ $# -eq 1 ] || usage
environment=$1
case $environment in dev | test) ;; *) usage ;; esac

number=${BUILD_NUMBER:-0}
name=${KEEPFLOW_IMAGE:-keepwork}
checkout=${WORKSPACE:-$(cd "$(dirname "$0")/.." && pwd)}
case $number in '' | *[!0-9]*) fail "BUILD_NUMBER is not a number: $number" 2 ;; esac
case $name in '' | -* | *[!a-z0-9._/-]*) fail "KEEPFLOW_IMAGE is not the name of an image: $name" 2 ;; esac
[ -f "$checkout/Dockerfile" ] || fail "no Dockerfile in $checkout"
image=$name/$environment:b$number

work=$(mktemp -d "${TMPDIR:-/tmp}/build-image.XXXXXX")
dist=
clean() {
  rm -rf "$work"
  if [ -n "$dist" ]; then
    docker rm --force "$dist" >/dev/null 2>&1 || :
    docker rmi "$dist" >/dev/null 2>&1 || :
  fi
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A tar file and not a pipe between: sh would not see the first half fail.
copy_checkout() {
  mkdir "$work/tree"
  tar -cf "$work/tree.tar" --exclude=./.git -C "$checkout" .
  tar -xf "$work/tree.tar" -C "$work/tree"
  secrets=${JENKINS_HOME:-}/project_secret_files/$name
  if [ -n "${JENKINS_HOME:-}" ] && [ -d "$secrets" ]; then
    cp -R "$secrets/." "$work/tree/"
  fi
}

# Leaves in the tree what the container of Dockerfile.dist writes; a failure leaves nothing half done behind.
compress_tree() {
  [ -f "$work/tree/Dockerfile.dist" ] || fail "no Dockerfile.dist in $checkout"
  dist=build-$(printf %s "$name" | tr / -)-$number-$$
  echo "+ docker build --file Dockerfile.dist" >&2
  docker build --force-rm --file "$work/tree/Dockerfile.dist" --tag "$dist" \
    ${COMPRESS:+--build-arg "COMPRESS=$COMPRESS"} "$work/tree"
  echo "+ docker run $dist" >&2
  docker run --rm --init --network none --name "$dist" "$dist" >"$work/dist.tar"
  rm -rf "$work/tree"
  mkdir "$work/tree"
  tar -xf "$work/dist.tar" -C "$work/tree"
  keep_as_cache
}

# The newest compressing image stays, under one name, for its layers: the next build starts from them.
keep_as_cache() {
  before=$(docker image inspect --format '{{.Id}}' "$name/dist:latest" 2>/dev/null) || before=
  docker tag "$dist" "$name/dist:latest"
  if [ -n "$before" ] && [ "$before" != "$(docker image inspect --format '{{.Id}}' "$name/dist:latest")" ]; then
    docker rmi "$before" >/dev/null 2>&1 || : # another build may be using it
  fi
}

# Old images of this name go, all but ten. One that a container uses stays, as the engine refuses.
remove_old_images() {
  # By number: two images of one second have no order in time.
  docker image ls --format '{{.Tag}}' "$name/$environment" | sed -n 's/^b\([0-9]\{1,\}\)$/\1/p' | sort -rn |
    sed '1,10d' | while read -r old; do
    docker rmi "$name/$environment:b$old" >/dev/null 2>&1 || :
  done
}

copy_checkout
[ "$environment" = dev ] || compress_tree
commit=${GIT_COMMIT:-$(git -C "$checkout" rev-parse HEAD 2>/dev/null || echo unknown)}
printf 'commit=%s\nbuild=%s\n' "$commit" "$number" >"$work/tree/build-info"
echo "+ docker build --tag $image" >&2
docker build --force-rm --tag "$image" ${BASE:+--build-arg "BASE=$BASE"} "$work/tree"
if [ -n "${KEEPFLOW_OUTPUT:-}" ]; then
  echo "image=$image" >>"$KEEPFLOW_OUTPUT"
fi
case $number in *0) remove_old_images ;; esac
echo "built $image"
