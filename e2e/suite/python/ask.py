"""Asks grpc.health.v1.Health by Python's own client, and prints a line for each answer: the method, the service, what came."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

address, ca, *services = sys.argv[1:]
if ca:
    with open(ca, "rb") as file:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()))
else:
    channel = grpc.insecure_channel(address)
health = health_pb2_grpc.HealthStub(channel)
options = {"timeout": 60, "wait_for_ready": True}
methods = {
    "check": lambda request: health.Check(request, **options),
    "watch": lambda request: next(health.Watch(request, **options)),
}
for name, call in methods.items():
    for service in services:
        try:
            reply = call(health_pb2.HealthCheckRequest(service=service))
            answer = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
        except grpc.RpcError as error:
            answer = error.code().name
        print(name, repr(service), answer)
