"""`covey node check`: can this node take part? Keys, policy, data, one local batch, the coordinator within reach."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from covey.errors import CoveyError
from covey.figures import METHOD as STATISTICS
from covey.metrics import missing
from covey.node.operator.config import IDENTITY_FOLDER, NodeConfig
from covey.node.operator.policy import BUILT_IN_TASKS, Policy
from covey.spec import RoundsSpec, RunSpec, TaskSection
from covey.wire.channels import secure_channel
from covey.wire.identities.identity import Identity
from covey.wire.reach import NOT_SERVED, WRONG_PORT, why_unreachable
from covey.worker.client.client import Worker
from covey.worker.jobs.operations import CHECK, HELLO
from covey.worker.jobs.runs import CheckJob, HelloJob

REACH_S = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    text: str
    skipped: bool = False
    """Whether it is no failure: a task that nobody has set up here."""


async def check_node(config: NodeConfig, spec: RunSpec | None = None) -> list[Finding]:
    """Look at everything; never raises for what it finds.

    Args:
        config: The node's configuration.
        spec: The run that the node is to take part in; default: every task that its policy allows.

    Of the tasks that come with Covey, and are allowed because the operator has said nothing, those without data here
    are skipped; all others must work.
    """
    findings = [await _identity(config)]
    if findings[0].ok:
        findings.append(await _coordinator(config))
    findings.extend(_rules(config.policy, time.time()))
    folder = config.data_dir / "check"  # beside a running node's own
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / "worker.log"
    worker = await Worker.start(folder, device=config.device, log_file=log_file, confinement=config.confinement)
    try:
        findings.append(await _worker(worker))
        tasks = [
            finding
            for text in ([spec] if spec is not None else list(_default_specs(config)))
            for finding in await _task(config, worker, text)
        ]
    finally:
        await worker.stop()
    return findings + (tasks if spec is not None else [_judged(config, finding, tasks) for finding in tasks])


def _judged(config: NodeConfig, finding: Finding, tasks: list[Finding]) -> Finding:
    is_default = "tasks" not in config.policy.model_fields_set and finding.what in {f"task {t}" for t in BUILT_IN_TASKS}
    works = any(task.ok for task in tasks)
    return replace(finding, skipped=True) if not finding.ok and is_default and works else finding


def _default_specs(config: NodeConfig) -> Iterator[RunSpec]:
    for name in (*config.policy.tasks, *config.policy.allow_paths):
        options = {"parameters": 1000} if name == "synthetic" else {}
        yield RoundsSpec(name="check", task=TaskSection(name=name, options=options))


def _rules(policy: Policy, now: float) -> Iterator[Finding]:
    """What the operator's rules come to now."""
    hours = policy.allowed_hours
    if hours.are_bounded:
        yield Finding("hours", True, f"begins work {hours.text}, which is {'' if hours.include(now) else 'not '}now")
    if policy.min_participants > 1:
        yield Finding("participants", True, f"declines rounds of fewer than {policy.min_participants} nodes")
    shared = {"none": "", "failures": "what fails here", "all": "all that is logged here of a run"}[policy.share_logs]
    if shared:
        yield Finding("log", True, f"shares {shared}{', without paths' if policy.scrub_paths else ''}")


async def _identity(config: NodeConfig) -> Finding:
    try:
        identity = Identity.load(config.data_dir / IDENTITY_FOLDER)
        reason = identity.explain()
    except CoveyError as error:
        return Finding("identity", False, str(error))
    return Finding("identity", not reason, reason or f"node {identity.name}, federation {identity.federation}")


async def _coordinator(config: NodeConfig) -> Finding:
    identity = Identity.load(config.data_dir / IDENTITY_FOLDER)
    server = config.server or identity.server
    channel = secure_channel(server, identity, dummy="check")
    try:
        stub: health_pb2_grpc.HealthStub = health_pb2_grpc.HealthStub(channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=REACH_S)
        ok = reply.status == health_pb2.HealthCheckResponse.SERVING
        return Finding("coordinator", ok, f"{server} answers" if ok else f"{server} is not serving")
    except grpc.aio.AioRpcError as error:
        if error.code() == NOT_SERVED:
            return Finding("coordinator", False, f"{server} {WRONG_PORT}")
        reason = await why_unreachable(server, identity.authority_pem)
        return Finding("coordinator", False, f"{server} cannot be reached: {reason}")
    finally:
        await channel.close()


def _name(config: NodeConfig) -> str:
    """The node's; empty: it has no identity yet."""
    try:
        return Identity.load(config.data_dir / IDENTITY_FOLDER).name
    except CoveyError:
        return ""


async def _worker(worker: Worker) -> Finding:
    try:
        hello = await worker.do(HELLO, HelloJob())
    except CoveyError as error:
        return Finding("worker", False, str(error))
    return Finding("worker", True, f"computes on {hello.device}; {hello.confinement}")


async def _task(config: NodeConfig, worker: Worker, spec: RunSpec) -> list[Finding]:
    what = f"task {spec.task.name}"
    try:
        config.check_run(spec)
        job = CheckJob(
            spec_json=spec.to_json(),
            node_paths=config.paths,
            node_options=config.options,
            task_options=spec.task.nodes.get(_name(config), {}),
            allow_path=config.allows_paths(spec),
            limits=config.train_limits,
            filters=config.filters,
        )
        checked = await worker.do(CHECK, job, stall_s=min(spec.training.stall_s, config.settings.limits.stall_s))
    except CoveyError as error:
        return [Finding(what, False, str(error))]
    asks = spec.method.name == STATISTICS  # and has no model
    text = (
        f"{checked.examples} examples, figures of which go into its answer; there is no model"
        if asks
        else f"{checked.examples} examples, {checked.parameters:,} parameters, loss {checked.loss:.4g}, "
        f"{checked.seconds_per_step * 1000:.1f} ms a step on {checked.device}"
    )
    problems = [f"no {name}: {reason}" for name, reason in sorted(missing(checked.evaluation).items())]
    shared = [Finding("exchange", True, checked.sharing)] if checked.sharing and not asks else []
    private = [Finding("privacy", True, checked.privacy.removeprefix("privacy: "))] if checked.privacy else []
    passed = [Finding("outgoing", True, f"passes {', '.join(checked.filters)}")] if checked.filters else []
    warned = [Finding("warning", True, text) for text in checked.warnings]
    return [
        Finding(what, True, text),
        *shared,
        *private,
        *passed,
        *warned,
        *(Finding(f"evaluation of {spec.task.name}", False, text) for text in problems),
    ]


def run_check(config: NodeConfig, spec: RunSpec | None = None) -> list[Finding]:
    """`check_node` for a caller without an event loop."""
    return asyncio.run(check_node(config, spec))
