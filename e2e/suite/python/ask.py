"""Asks grpc.health.v1.Health by Python's own client, and prints a line for each answer: the method, the service, what came."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SECONDS = 60


def channel(address, ca):
    if not ca:
        return grpc.insecure_channel(address)
    with open(ca, "rb") as file:
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()))


def name(reply):
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


def check(health, request):
    return name(health.Check(request, timeout=SECONDS, wait_for_ready=True))


def watch(health, request):
    stream = health.Watch(request, timeout=SECONDS, wait_for_ready=True)
    first = name(next(stream))
    stream.cancel()
    return first


def main(address, ca, *services):
    with channel(address, ca) as opened:
        health = health_pb2_grpc.HealthStub(opened)
        for ask in (check, watch):
            for service in services:
                try:
                    answer = ask(health, health_pb2.HealthCheckRequest(service=service))
                except grpc.RpcError as error:
                    answer = error.code().name
                print(ask.__name__, repr(service), answer)


main(*sys.argv[1:])
