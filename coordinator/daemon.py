"""The coordinator daemon: opens the record, takes the lease, starts the worker and both listeners, cares for runs."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

import grpc.aio
import structlog

from covey.coordinator.admin.gauges import CoordinatorGauges
from covey.coordinator.admin.handlers import admin_handler
from covey.coordinator.admin.health import CoordinatorHealth
from covey.coordinator.admin.metrics import CoordinatorMetrics
from covey.coordinator.admin.operation import Operation
from covey.coordinator.admin.record_snapshot import RecordSnapshot, keep_snapshot
from covey.coordinator.admin.service import AdminService
from covey.coordinator.backup.ownership import check_folder, check_record, take_over
from covey.coordinator.config import DATABASE, CoordinatorConfig
from covey.coordinator.environment import Environment
from covey.coordinator.files import keep_address_tidy, open_files
from covey.coordinator.keys.keys import Keys, open_keys, own_keys, write_admin_identity
from covey.coordinator.keys.renewal import OwnCertificate
from covey.coordinator.nodes.door import (
    ENROLMENT_CONNECTIONS,
    MAIN_CONNECTIONS,
    MOST_CALLS,
    OneDoor,
    end_all,
    enrolment_guard,
    enrolment_options,
    main_guard,
    main_options,
)
from covey.coordinator.nodes.enrolment import EnrolmentService
from covey.coordinator.nodes.handlers import coordinator_handler
from covey.coordinator.nodes.last_seen import keep_seen
from covey.coordinator.nodes.members import Members
from covey.coordinator.nodes.service import CoordinatorService
from covey.coordinator.nodes.sessions import Sessions
from covey.coordinator.store_thread import StoreThread
from covey.coordinator.studies import EVICTED, STUDIES_FILE, Studies
from covey.driver.ending import end
from covey.driver.steady_clock import say_jumps
from covey.errors import CoveyError
from covey.protos import coordinator_pb2_grpc
from covey.signals import told_by_signals
from covey.storage.files.data_lock import held
from covey.storage.record.contract import EventRecord, Role
from covey.storage.sql.engine import database_url, sqlite_path
from covey.storage.sql.store import SqlStore, open_store
from covey.telemetry import cannot_run, configure_logging
from covey.wire.announcement import announce, withdraw
from covey.wire.channels import Peer, renewing_credentials
from covey.wire.channels import listen as listen_on
from covey.wire.listeners.connections import allow_many_files, keep_bounded
from covey.wire.listeners.metrics_server import scrapable
from covey.worker.client.supervisor import WorkerSupervisor, first_ended

log = structlog.get_logger(room="coordinator")
GRACE_S = 1.0
KEYS = "keys"
EVENTS = "events"
ANNOUNCEMENT = "coordinator.json"
ROLES: tuple[Role, ...] = ("node", "admin", "auditor", "member")


def run_coordinator(config: CoordinatorConfig) -> int:
    """Run the daemon until SIGTERM or SIGINT; returns the exit code."""
    configure_logging(config.log_format, config.log_level)
    os.umask(0o077)  # record, models and keys are nobody else's
    try:
        with held(config.data_dir, "coordinator"):
            return asyncio.run(_main(config))
    except CoveyError as error:
        return cannot_run(log, "the coordinator", error)


async def _main(config: CoordinatorConfig) -> int:
    config.data_dir.mkdir(parents=True, exist_ok=True)
    for path in config.data_dir.glob(f"{DATABASE}*"):  # of a version that left them open to others
        path.chmod(0o600)
    allow_many_files()
    check_folder(config.data_dir)
    keys = await asyncio.to_thread(open_keys, config.data_dir, time.time())
    env, own = await _environment(config, keys), OwnCertificate(config.data_dir, keys)
    with told_by_signals(env.operation.stop.set):
        return await _serve_and_measure(env, own)


async def _serve_and_measure(env: Environment, own: OwnCertificate) -> int:
    config = env.config
    registry = env.metrics.registry
    registry.register(CoordinatorGauges(env.gauge_sources(own)))

    def admit(peer: Peer) -> None:
        env.members.admit(peer, env.now())

    async with scrapable(registry, config.metrics, config.data_dir / KEYS, admit=admit) as url:
        return await _run(env, own, url)


async def _run(env: Environment, own: OwnCertificate, metrics_url: str) -> int:
    ready = asyncio.create_task(env.worker.ready())
    try:
        if env.worker.may_lack_device:
            await ready
        servers = await _serve(env, own, metrics_url)
    except BaseException:
        await _shut_down(env, [], [ready])
        raise
    renewal = asyncio.create_task(own.keep(env.config.advertise or env.addresses.listen))
    runs = asyncio.create_task(env.scheduler.serve())
    stop = asyncio.create_task(env.operation.stop.wait())
    bounds = {_port(env.addresses.enrol_listen): ENROLMENT_CONNECTIONS, _port(env.addresses.listen): MAIN_CONNECTIONS}
    bounded = asyncio.create_task(keep_bounded(bounds))
    seen = asyncio.create_task(keep_seen(env.store, env.sessions, env.now))
    clock = asyncio.create_task(say_jumps())
    tidied = asyncio.create_task(env.offers.unfinished.keep_tidy())
    address = asyncio.create_task(keep_address_tidy(env.files))
    tasks: list[asyncio.Task[Any]] = [runs, stop, renewal, bounded, seen, tidied, clock, address]
    if metrics_url:
        tasks.append(asyncio.create_task(keep_snapshot(env.store, env.snapshot)))
    code = 0
    for task in await first_ended([runs, stop], ready):
        if task.exception() is not None:
            log.error("the coordinator stops", error=str(task.exception()))
            code = 1
    log.info("stopping")
    await _shut_down(env, servers, [*tasks, ready])
    return code


def _take_over(config: CoordinatorConfig) -> SqlStore:
    """Open the record and become its one coordinator, if the files here are its own."""
    path = sqlite_path(database_url(config.database_url))
    if path is not None and not path.exists():  # a start that is refused leaves no empty database behind
        check_record(config.data_dir, None, 0)
    store = open_store(config.database_url)
    take_over(store, config.data_dir, f"{socket.gethostname()}:{os.getpid()}")
    return store


async def _environment(config: CoordinatorConfig, keys: Keys) -> Environment:
    record = await asyncio.to_thread(_take_over, config)
    store = StoreThread(record)
    files = await asyncio.to_thread(open_files, config, record)
    identities = {role: record.nodes(role=role) for role in ROLES}
    metrics = CoordinatorMetrics()
    everybody = [member for members in identities.values() for member in members]
    evicted = {member.node for member in everybody if member.state != "active"}
    return Environment(
        config=config,
        store=store,
        files=files,
        worker=WorkerSupervisor(
            config.data_dir,
            device=config.device,
            log_format=config.log_format,
            on_replaced=metrics.worker_restarts.inc,
            stall_s=config.stall_s,
            log_name="the coordinator's log",
            confinement=config.confinement,
        ),
        authority=keys.authority,
        signing_key=keys.signing_key,
        sessions=Sessions(),
        members=Members(store, evicted, everybody),
        operation=Operation(paused=record.setting("paused") == "true"),
        events=config.data_dir / EVENTS,
        metrics=metrics,
        studies=Studies(config.data_dir / STUDIES_FILE, record.setting(EVICTED)),
        snapshot=RecordSnapshot({node.node for node in identities["node"]}),
    )


async def _serve(env: Environment, own: OwnCertificate, metrics_url: str) -> list[grpc.aio.Server]:
    config, enrolment = env.config, EnrolmentService(env.enrolment_services())
    guard, strangers = main_guard(env.members, env.now, env.connections), enrolment_guard(env.connections)
    env.members.on_evicted = lambda name: end_all(guard, name)
    door = OneDoor(guard, strangers) if config.has_one_port else guard
    main = grpc.aio.server(options=main_options(), interceptors=[door], maximum_concurrent_rpcs=MOST_CALLS)
    main.add_generic_rpc_handlers(
        (
            coordinator_handler(CoordinatorService(env.node_services())),
            admin_handler(AdminService(env.admin_services())),
            CoordinatorHealth(env.store, env.members).handler(),
        )
    )
    port = listen_on(main, config.listen, renewing_credentials(lambda: own.identity, mutual=True), "--listen")
    servers, enrol_port = [main], port
    if config.has_one_port:
        coordinator_pb2_grpc.add_EnrolmentServicer_to_server(enrolment, main)
    else:
        enrol = grpc.aio.server(
            options=enrolment_options(), interceptors=[strangers], maximum_concurrent_rpcs=MOST_CALLS
        )
        coordinator_pb2_grpc.add_EnrolmentServicer_to_server(enrolment, enrol)
        anybody = renewing_credentials(lambda: own.identity, mutual=False)
        enrol_port = listen_on(enrol, config.enrol_listen, anybody, "--enrol-listen")
        servers.append(enrol)
    for server in servers:
        await server.start()
    listen = env.addresses.listen = _address(env.config.listen, port)
    enrol_listen = env.addresses.enrol_listen = _address(env.config.enrol_listen, enrol_port)
    write_admin_identity(env.config.data_dir, own.keys, env.config.advertise or listen, env.now())
    env.members.own_keys = own_keys(env.config.data_dir)
    where = {"listen": listen, "enrol": enrol_listen}
    if metrics_url:
        where["metrics"] = metrics_url
    announce(env.config.data_dir / ANNOUNCEMENT, **where)
    now = env.now()
    await env.store.persist(env.store.store.add_event, EventRecord(now, "coordinator-started"))
    log.info("ready", listen=listen, enrol=enrol_listen, federation=env.federation)
    return servers


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _address(configured: str, port: int) -> str:
    return f"{configured.rpartition(':')[0]}:{port}"


async def _shut_down(env: Environment, servers: list[grpc.aio.Server], tasks: Sequence[asyncio.Task[Any]]) -> None:
    env.sessions.close_all("stopping", "the coordinator stops; come back")
    await end(tasks)
    await asyncio.gather(*(server.stop(GRACE_S) for server in servers))
    await env.worker.stop()
    await env.store.close()
    withdraw(env.config.data_dir / ANNOUNCEMENT)
    log.info("stopped")
