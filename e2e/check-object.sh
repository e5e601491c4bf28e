#!/usr/bin/env bash
# Fails where a shared object would not load in Envoy, or would end it later: check-object.sh file.so 2.35
#
#  - It needs a glibc newer than the one named.
#  - It was not linked with -z now: a function that Envoy lacks would be found missing at its first call, which ends Envoy,
#    and not when the object is loaded, which Envoy refuses.
#
# It reads the file, whatever machine that is for.
set -euo pipefail

fail() {
  echo "check-object: $1" >&2
  exit 1
}

newest=$(readelf --wide --version-info "$1" | { grep -o 'Name: GLIBC_[0-9][0-9.]*' || true; } | sed 's/Name: GLIBC_//' | sort -Vu | tail -n 1)
[[ -n "$newest" ]] || fail "$1 names no version of glibc at all; is it a shared object for Linux with glibc?"
[[ "$(printf '%s\n' "$newest" "$2" | sort -V | tail -n 1)" == "$2" ]] ||
  fail "$1 needs glibc $newest, newer than $2; build it on an older system, as the Dockerfile does"
readelf --wide --dynamic "$1" | grep -Eq '\(FLAGS_1\).*\bNOW\b' || fail "$1 is not linked with -z now"
