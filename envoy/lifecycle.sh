#!/usr/bin/env bash
# What Kubernetes asks of an Envoy beside the probe: whether it is alive, and that it ends in order.
#
#   lifecycle.sh alive   0 while Envoy's main thread answers, whatever the backends and the gate say: for livenessProbe
#   lifecycle.sh drain   fails the gate, lets the balancer notice, lets requests end: for preStop; SIGTERM comes after it
#
# The image has no curl. bash reaches admin on a port by itself; on a unix socket perl does, which Ubuntu's base has (perl-base).
set -euo pipefail

# host:port, or unix:///path.
admin=${ADMIN_ADDRESS:-127.0.0.1:9901}
# Seconds in which the balancer has to notice that the gate fails, and to stop sending. There is nothing to see from here
# that says it has.
notice=${DRAIN_NOTICE_SECONDS:-30}
# Seconds after that in which requests under way may end; then they are cut off.
finish=${DRAIN_FINISH_SECONDS:-30}
# What the container's first process prints to. Kubernetes throws away what a preStop hook prints.
container_log=${CONTAINER_LOG:-/proc/1/fd/1}

# say prints a line, and has it in the container's log.
say() {
  echo "healthgate: drain: $1"
  if [[ -w $container_log && ! /dev/stdout -ef $container_log ]]; then
    { echo "healthgate: drain: $1" >>"$container_log"; } 2>/dev/null || true
  fi
}

# exchange sends a request to admin and prints the whole answer.
exchange() {
  local host
  case $admin in
  unix://*)
    # shellcheck disable=SC2016
    timeout 5 perl -MIO::Socket::UNIX -e '
      my $admin = IO::Socket::UNIX->new(Peer => shift) or die "$!\n";
      local $/;
      print $admin scalar <STDIN>;
      $admin->flush;
      print scalar <$admin>;
    ' "${admin#unix://}"
    ;;
  *)
    host=${admin%:*}
    host=${host#[}
    # shellcheck disable=SC2016
    timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1" && cat >&3 && cat <&3' "${host%]}" "${admin##*:}"
    ;;
  esac
}

# ask METHOD PATH prints the body of admin's answer, and fails unless that is a 200.
ask() {
  local answer status
  answer=$(printf '%s %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n' "$1" "$2" | exchange) || return 1
  read -r _ status _ <<<"$answer"
  [[ $status == 200 ]] || return 1
  printf '%s\n' "${answer#*$'\r\n\r\n'}"
}

# active prints how many requests are under way on all listeners but admin's, and nothing where no stat tells.
active() {
  ask GET '/stats?filter=%5Ehttp%5C..%2A%5C.downstream_rq_active%24' |
    awk -F': ' '/^http\./ && !/^http\.admin\./ { n += $2; seen = 1 } END { if (seen) print n }'
}

# drain fails the gate and returns once Envoy may be ended.
drain() {
  say "failing the gate, for the balancer to notice within ${notice}s"
  if ! ask POST /healthcheck/fail >/dev/null; then
    say "admin at $admin does not answer: nothing is drained; ADMIN_ADDRESS says where admin is"
    return 1
  fi
  sleep "$notice"
  # Each connection is let go with its next reply (connection: close, GOAWAY), and not before the notice is over.
  ask POST '/drain_listeners?graceful&skip_exit' >/dev/null || say "admin refuses /drain_listeners: clients keep their connections"

  local n blind='' quiet=0 until=$((SECONDS + finish))
  while :; do
    n=$(active) || n=''
    if [[ -z $n && -z $blind ]]; then
      blind=1
      say "can't see requests: no stat http.<stat_prefix>.downstream_rq_active (a stats matcher?); waiting all of ${finish}s"
    fi
    if [[ $n == 0 ]]; then
      ((quiet += 1))
    else
      quiet=0
    fi
    # For a second, so that a client between two calls has its next, and with it the word to go.
    if ((quiet >= 5)); then
      say "no request is left"
      return
    fi
    ((SECONDS < until)) || break
    sleep 0.2
  done
  case $n in
  '') say "the ${finish}s are over, and what is left is cut off" ;;
  0) say "no request is left" ;;
  *) say "$n requests are left after ${finish}s, and are cut off" ;;
  esac
}

case "${1:-}" in
alive)
  if ! ask GET /server_info >/dev/null; then
    echo "healthgate: alive: admin at $admin has not answered within 5s" >&2
    exit 1
  fi
  ;;
drain)
  drain
  ;;
*)
  echo "usage: lifecycle.sh alive | drain" >&2
  exit 2
  ;;
esac
