#!/usr/bin/env bash
# Fails where a shared object needs a newer glibc than the one named: check-glibc.sh file.so 2.35
# It reads the file, whatever machine that is for.
set -euo pipefail

newest=$(readelf --wide --version-info "$1" | { grep -o 'Name: GLIBC_[0-9][0-9.]*' || true; } | sed 's/Name: GLIBC_//' | sort -Vu | tail -n 1)
if [[ -z "$newest" ]]; then
  echo "check-glibc: $1 names no version of glibc at all; is it a shared object for Linux with glibc?" >&2
  exit 1
fi
if [[ "$(printf '%s\n' "$newest" "$2" | sort -V | tail -n 1)" != "$2" ]]; then
  echo "check-glibc: $1 needs glibc $newest, newer than $2; build it on an older system, as the Dockerfile does" >&2
  exit 1
fi
