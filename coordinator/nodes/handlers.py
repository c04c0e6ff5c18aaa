"""The generic gRPC handler towards nodes: typed messages for control, hand-written chunks for bulk."""

from __future__ import annotations

from typing import Any

import grpc

from covey.coordinator.nodes.service import CoordinatorService
from covey.protos import coordinator_pb2
from covey.wire.errors import translated, translated_stream
from covey.wire.transfers.chunks import download_handler, upload_handler


def coordinator_handler(service: CoordinatorService) -> grpc.GenericRpcHandler:
    """`covey.v1.Coordinator`."""
    session = grpc.stream_stream_rpc_method_handler(
        translated_stream(service.session),
        request_deserializer=coordinator_pb2.NodeMessage.FromString,
        response_serializer=coordinator_pb2.CoordinatorMessage.SerializeToString,
    )
    renew = grpc.unary_unary_rpc_method_handler(
        translated(service.renew),
        request_deserializer=coordinator_pb2.RenewRequest.FromString,
        response_serializer=coordinator_pb2.EnrolReply.SerializeToString,
    )
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Session": session,
        "Download": download_handler(translated_stream(service.download)),
        "Upload": upload_handler(translated(service.upload)),
        "Renew": renew,
    }
    return grpc.method_handlers_generic_handler("covey.v1.Coordinator", methods)
