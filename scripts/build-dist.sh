#!/bin/sh
# Compresses a tree of web files. Runs by hand, and inside the container of Dockerfile.dist.
set -eu

usage() {
  cat >&2 <<'TEXT'
usage: build-dist.sh SOURCE TARGET

Writes to TARGET a copy of SOURCE whose JavaScript and CSS are minified by esbuild, and beside each text file a
packed one (NAME.gz) for servers that send those. SOURCE is only read. TARGET must not exist; it appears complete,
or not at all.

environment: ESBUILD  the minifier (default: esbuild)
TEXT
  exit 2
}

[ $# -eq 2 ] || usage
source=${1%/}
target=${2%/}
ESBUILD=${ESBUILD:-esbuild}
export ESBUILD

fail() {
  echo "build-dist.sh: $1" >&2
  exit 1
}

[ -d "$source" ] || fail "$source is not a directory"
[ ! -e "$target" ] || fail "$target exists already: remove it first"
command -v "$ESBUILD" >/dev/null || fail "esbuild is missing: install it (apt or npm have it), or set ESBUILD"

unfinished=$target.unfinished.$$
trap 'rm -rf "$unfinished"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cp -R "$source" "$unfinished"

# Names come from the repository: they are passed as arguments, never as part of a command.
find "$unfinished" -type f \( -name '*.js' -o -name '*.css' \) ! -name '*.min.*' -exec sh -euc '
  for file do
    "$ESBUILD" --minify --log-level=warning --loader="${file##*.}" <"$file" >"$file.minified"
    cat "$file.minified" >"$file"
    rm "$file.minified"
  done' sh {} +

find "$unfinished" -type f \( -name '*.js' -o -name '*.css' -o -name '*.html' -o -name '*.json' -o -name '*.svg' \) \
  -exec sh -euc '
  for file do
    gzip -9n <"$file" >"$file.gz"
  done' sh {} +

mv "$unfinished" "$target"
echo "build-dist.sh: $(du -sk "$source" | cut -f1) KiB became $(du -sk "$target" | cut -f1) KiB in $target"
