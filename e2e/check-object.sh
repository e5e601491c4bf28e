#!/usr/bin/env bash
# Checks that Envoy can load a shared object, and does not crash later: check-object.sh file.so 2.35
#
#  - It needs no newer glibc than the given version.
#  - It is linked with -z now. Otherwise a function that Envoy lacks ends Envoy at the first call, instead of failing the load.
#
# It reads objects for any architecture.
set -euo pipefail

fail() {
  echo "check-object: $1" >&2
  exit 1
}

newest=$(readelf --wide --version-info "$1" | { grep -o 'Name: GLIBC_[0-9][0-9.]*' || true; } |
  sed 's/Name: GLIBC_//' | sort -Vu | tail -n 1)
[[ -n "$newest" ]] || fail "$1 needs no version of glibc; is it a shared object for Linux with glibc?"
[[ "$(printf '%s\n' "$newest" "$2" | sort -V | tail -n 1)" == "$2" ]] ||
  fail "$1 needs glibc $newest, newer than $2; build it on an older system, as the Dockerfile does"
readelf --wide --dynamic "$1" | grep -Eq '\(FLAGS_1\).*\bNOW\b' || fail "$1 is not linked with -z now"
