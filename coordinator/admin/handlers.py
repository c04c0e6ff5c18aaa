"""The generic gRPC handler towards admins: the methods of `AdminService`, and one translation of errors."""

from __future__ import annotations

from typing import Any

import grpc

from covey.coordinator.admin.access.study_edits import STUDY_CALLS
from covey.coordinator.admin.checking import CHECK_CALLS
from covey.coordinator.admin.service import AdminService
from covey.protos import admin_pb2
from covey.wire.errors import translated, translated_stream
from covey.wire.transfers.chunks import download_version_handler

ADMIN_CALLS = {
    "SubmitRun": "submit_run",
    "ListRuns": "list_runs",
    "ShowRun": "show_run",
    "StopRun": "stop_run",
    "DeleteRun": "delete_run",
    "LocateVersion": "locate_version",
    "ListRounds": "list_rounds",
    "ShowRound": "show_round",
    "ListContributions": "list_contributions",
    "ListGossip": "list_gossip",
    "ListNodes": "list_nodes",
    "ShowNode": "show_node",
    "ListEvents": "list_events",
    "ListSiteLog": "list_site_log",
    "EvictNode": "evict_node",
    "CreateToken": "create_token",
    "ListTokens": "list_tokens",
    "RevokeToken": "revoke_token",
    "Pause": "pause",
    "Status": "status",
    "Drain": "drain",
    "Backup": "backup",
}
"""Unary methods of `covey.v1.Admin` to those of `AdminService`."""


def admin_handler(service: AdminService) -> grpc.GenericRpcHandler:
    """`covey.v1.Admin`."""
    types = admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods_by_name
    calls = {name: getattr(service, method) for name, method in ADMIN_CALLS.items()}
    calls |= {name: getattr(service.checks, method) for name, method in CHECK_CALLS.items()}
    calls |= {name: getattr(service.study_edits, method) for name, method in STUDY_CALLS.items()}
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        name: grpc.unary_unary_rpc_method_handler(
            translated(call),
            request_deserializer=getattr(admin_pb2, types[name].input_type.name).FromString,
            response_serializer=getattr(admin_pb2, types[name].output_type.name).SerializeToString,
        )
        for name, call in calls.items()
    }
    for name, stream in (("WatchRun", service.watch_run), ("AuditRun", service.audit_run)):
        methods[name] = grpc.unary_stream_rpc_method_handler(
            translated_stream(stream),
            request_deserializer=getattr(admin_pb2, types[name].input_type.name).FromString,
            response_serializer=getattr(admin_pb2, types[name].output_type.name).SerializeToString,
        )
    methods["SubmitRunWithModel"] = grpc.stream_stream_rpc_method_handler(
        translated_stream(service.submit_run_with_model),
        request_deserializer=admin_pb2.SubmitModelRequest.FromString,
        response_serializer=admin_pb2.Run.SerializeToString,
    )
    methods["DownloadVersion"] = download_version_handler(translated_stream(service.download_version))
    return grpc.method_handlers_generic_handler("covey.v1.Admin", methods)
