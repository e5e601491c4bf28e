#!/usr/bin/env bash
# What Kubernetes asks of an Envoy beside the probe: whether it is alive, and that it ends in order.
#
#   lifecycle.sh alive   0 while Envoy's main thread answers, whatever the backends and the gate say: for livenessProbe
#   lifecycle.sh drain   fails the gate, lets the balancer notice, lets requests end: for preStop; SIGTERM comes after it
#
# The image has no curl; bash reaches admin on loopback by itself, so that nothing has to be added to it.
set -euo pipefail

admin_port=${ADMIN_PORT:-9901}
# Seconds in which the balancer has to notice that the gate fails, and to stop sending. There is nothing to see from here
# that says it has.
notice=${DRAIN_NOTICE_SECONDS:-30}
# Seconds after that in which requests under way may end; then they are cut off.
finish=${DRAIN_FINISH_SECONDS:-30}

# ask METHOD PATH prints the body of admin's answer, and fails unless that is a 200.
ask() {
  local status line
  exec 3<>"/dev/tcp/127.0.0.1/$admin_port"
  printf '%s %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n' "$1" "$2" >&3
  read -r -t 5 _ status _ <&3
  while read -r -t 5 line <&3 && [[ "$line" != $'\r' ]]; do :; done
  [[ "$status" == 200 ]] || { exec 3>&-; return 1; }
  timeout 5 cat <&3
  exec 3>&-
}

# active prints how many requests are under way on all listeners but admin's.
active() {
  ask GET '/stats?filter=%5Ehttp%5C..%2A%5C.downstream_rq_active%24' |
    awk -F': ' '/^http\./ && !/^http\.admin\./ { n += $2 } END { print n + 0 }'
}

case "${1:-}" in
alive)
  ask GET /server_info >/dev/null
  ;;
drain)
  echo "drain: failing the gate, for the balancer to notice within ${notice}s"
  ask POST /healthcheck/fail >/dev/null
  sleep "$notice"
  # Each connection is let go with its next reply (connection: close, GOAWAY). Not before the notice is over: envoy.yaml, drain_type.
  ask POST '/drain_listeners?graceful&skip_exit' >/dev/null
  until=$((SECONDS + finish))
  while n=$(active) && ((n > 0)); do
    if ((SECONDS >= until)); then
      echo "drain: $n requests are left after ${finish}s, and are cut off" >&2
      exit 0
    fi
    sleep 0.2
  done
  echo "drain: no request is left"
  ;;
*)
  echo "usage: lifecycle.sh alive | drain" >&2
  exit 2
  ;;
esac
