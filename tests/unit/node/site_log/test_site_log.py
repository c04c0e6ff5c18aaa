"""What a node shares of its log while it works: said beside the work, and kept while there is no connection."""

import asyncio

import pytest
import structlog

from covey import messages as msg
from covey.errors import PolicyError, TaskError
from covey.node.assignments.conversation import Conversation
from covey.node.assignments.executor import Executor
from covey.node.operator.config import NodeSettings
from covey.node.operator.policy import Policy
from covey.node.site_log.site_log import SiteLog, log_name
from covey.telemetry import heard_by
from covey.wire.identities.signing import UpdateStatement
from tests.unit.node.memory import Node, assignment


@pytest.fixture
async def site(tmp_path):
    """A node that shares all of its log, without paths."""
    policy = Policy(share_logs="all", scrub_paths=True)
    node = Node(tmp_path, settings=NodeSettings(policy=policy))
    log = SiteLog(node.coordinator, "all", node.services.config.scrubbed, lambda: 5.0)
    object.__setattr__(node.services, "site_log", log)
    yield node
    await node.actor.stop()


def lines(node):
    return [(line.kind, line.text) for message in node.coordinator.of(msg.SiteLog) for line in message.lines]


async def test_a_failure_names_its_phase_and_waits_for_a_connection(site, tmp_path):
    talk = Conversation(site.services, assignment("a", 2), lambda stage, update: None)
    talk.began()
    talk.advanced("has-base", "")
    error = TaskError(f"no column in {tmp_path}/ages.csv")
    error.traceback = "Traceback\nKeyError: 'age'"
    site.coordinator.lose()
    talk.decline(error)
    site.services.site_log.send()
    assert lines(site) == []
    site.coordinator.come_back()
    site.services.site_log.send()
    failure = "training failed: task-failed: no column in <path>"
    assert lines(site) == [("failure", failure), ("traceback", "Traceback"), ("traceback", "KeyError: 'age'")]


async def test_reasons_have_no_paths_either_and_what_is_not_allowed_is_no_failure(site, tmp_path):
    talk = Conversation(site.services, assignment("a", 2), lambda stage, update: None)
    talk.decline(PolicyError(f"not {tmp_path}/x"))
    assert [decline.reason for decline in site.coordinator.of(msg.Decline)] == ["not <path>"]
    site.services.site_log.send()
    assert lines(site) == []


async def test_why_a_metric_of_a_training_is_missing_has_no_paths_either(site, tmp_path):
    site.worker.metrics = {"auc": f"no labels in {tmp_path}/labels.csv"}
    talk = Conversation(site.services, assignment("a", 1), lambda stage, update: None)
    site.coordinator.listen(talk.answered)
    await Executor(site.services).do(talk)
    (offer,) = site.coordinator.of(msg.UpdateOffer)
    assert UpdateStatement.from_bytes(offer.statement).metrics == {"auc": "no labels in <path>"}


async def test_the_node_s_own_log_is_shared_where_it_is_about_a_run(site):
    log = structlog.get_logger()
    with heard_by(site.services.site_log.heard):
        log.bind(run="a", round=3).warning("going on", reason="it \x1b[31mbroke")
        log.info("connected", server="example.org")
        await asyncio.to_thread(log.info, "from a thread", run="a")
    log.info("heard no more", run="a")
    await asyncio.sleep(0)
    site.services.site_log.send()
    assert lines(site) == [("node", "going on reason=it \\x1b[31mbroke"), ("node", "from a thread")]


def test_a_reason_says_where_the_rest_is():
    assert log_name("n0", "none") == "the log of node n0"
    assert log_name("n0", "failures") == "the log of node n0 (covey run logs RUN --node n0)"
