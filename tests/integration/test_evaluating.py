"""Runs that only evaluate: simulated, and on daemons that are killed meanwhile, with the same figures."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from covey.cli.main import covey
from covey.client import connect
from covey.client.experiments.simulated import simulate
from covey.client.models.continuing import continuation
from covey.client.models.evaluating import Wanted, evaluation_of
from covey.client.models.evaluations import evaluation_in
from covey.errors import NotFound, SpecError
from covey.learning.task import NodeData
from covey.learning.tasks.digits import Digits
from covey.testing.federation import Federation
from covey.testing.launch.forks import forked_workers
from covey.ui.outcomes import outcome_of
from covey.ui.shapes import kind_of
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
NODES, ROUNDS = 2, 2
SKEWED = '[data]\npartition = "dirichlet"\nalpha = 0.3\nparts = 2\n'
PRIVATE = '[privacy]\nunit = "example"\nclip = 1.0\nnoise = 1.0\nsampling = 0.1\n'
PERSONAL = SKEWED + '[exchange]\nlocal = ["2.*"]\n'
BASELINE = Wanted(local_baseline=True)


def training(name="digits", *, rounds=ROUNDS, min_nodes=NODES, on_nodes="true", extra=SKEWED):
    options = f"hidden = 16\nevaluate_on_nodes = {on_nodes}"
    return spec(name, options=options, rounds=rounds, min_nodes=min_nodes, extra=extra)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The record of two runs of two rounds, one of which shares a part of its model, and of their evaluations."""
    folder = tmp_path_factory.mktemp("evaluating") / "record"
    with forked_workers():
        for name, extra in (("digits", SKEWED), ("personal", PERSONAL)):
            simulate(training(name, extra=extra), NODES, data_dir=folder, processes=1)
            with connect(folder) as record:
                asked = evaluation_of(record, name, BASELINE)
            simulate(asked, NODES, data_dir=folder, processes=1)
    return folder


def test_nodes_evaluate_a_version_and_what_they_can_do_alone(folder):
    with connect(folder) as record:
        parent, shown = record.run("digits"), evaluation_in(record, "digits-evaluation")
        run = shown.run
        assert (run.parent, run.state) == (f"{parent.run}@{ROUNDS}", "completed")
        assert run.model_sha256 == parent.model_sha256  # nothing was trained
        assert [update.bytes for update in record.round(run, 1).updates] == [0] * NODES
        assert shown.central == {name: parent.metrics[name] for name in ("accuracy", "loss")}
        assert shown.metrics["accuracy"] == parent.metrics["accuracy"]  # they have the same examples
        for node in shown.took_part:
            assert node.gains["accuracy"] == node.metrics["accuracy"] - node.alone["accuracy"]
        assert len({node.alone["loss"] for node in shown.nodes}) == NODES
        assert {*shown.gaining, *shown.not_gaining} == {"n0", "n1"}
        assert shown.gains["loss"] == pytest.approx(sum(node.gains["loss"] for node in shown.nodes) / NODES)
        assert run.metrics["nodes/alone/accuracy"] == shown.alone["accuracy"]
        on_page = outcome_of(record, run)
        assert (on_page["kind"], on_page["metric"], kind_of(parent)) == ("evaluation", shown.metric, "")
        assert [(node["node"], node["gains"]) for node in on_page["nodes"]] == [
            (node.node, node.gains) for node in shown.nodes
        ]
        assert record.audit(run).ok
        assert record.replay(run).ok
        with pytest.raises(NotFound, match="run digits trains"):
            evaluation_in(record, "digits")
    printed = CliRunner().invoke(covey, ["run", "evaluation", run.run, "--data-dir", str(folder)]).stdout
    assert all(text in printed for text in ("ALONE", *(f"{node.gains['accuracy']:+.4f}" for node in shown.nodes)))
    text = CliRunner().invoke(covey, ["run", "evaluation", run.run, "--json", "--data-dir", str(folder)]).stdout
    assert json.loads(text)["nodes"][0]["alone"] == shown.nodes[0].alone


def test_each_node_evaluates_with_what_stayed_on_it(folder):
    with connect(folder) as record:
        parent, shown = record.run("personal"), evaluation_in(record, "personal-evaluation")
        assert (shown.metrics, shown.central) == (
            {name: parent.metrics[f"nodes/{name}"] for name in ("accuracy", "loss")},
            {},
        )
        assert len({node.metrics["loss"] for node in shown.took_part}) == NODES
        assert record.audit(shown.run).ok


def test_alone_is_what_a_federation_of_one_node_is_also_from_a_model_of_its_own(folder):
    with forked_workers():
        simulate(training("one", min_nodes=1, extra=""), 1, data_dir=folder, processes=1)
        with connect(folder) as record:
            more = continuation(record.run("one"), 1) | {"name": "more"}
        simulate(more, 1, data_dir=folder, processes=1)
        for name in ("one", "more"):
            with connect(folder) as record:
                asked = evaluation_of(record, name, BASELINE)
                assert asked["data"]["parts"] == 1  # as many as the run had
            simulate(asked, 1, data_dir=folder, processes=1)
    with connect(folder) as record:
        for name in ("one", "more"):
            (node,) = evaluation_in(record, f"{name}-evaluation").took_part
            assert node.alone == pytest.approx(node.metrics)
        begun, trained = record.run("more-evaluation").spec, record.run("more").spec
        assert begun["evaluation"]["local_initial"] == trained["model"]["initial"]
        assert record.replay("more-evaluation").ok


class Lacking(Digits):
    """Digits whose nodes find no evaluation data where they look for them."""

    def eval_data(self, data: NodeData) -> None:
        return None


def test_without_evaluation_data_a_node_says_so_and_the_run_fails(folder):
    lacking = training().replace('name = "digits"\n[task.options]', f'name = "{__name__}:Lacking"\n[task.options]')
    with connect(folder) as record:
        asked = evaluation_of(record, "digits", Wanted(nodes=("n1",), name="no-data"), lacking)
    with forked_workers():
        run = simulate(asked, NODES, data_dir=folder, processes=1).run
    why = "Lacking' gives no evaluation data on this node (Task.eval_data)"
    assert (run.state, why in run.reason) == ("failed", True)
    shown = CliRunner().invoke(covey, ["run", "evaluation", run.run, "--data-dir", str(folder)])
    assert (shown.exit_code, f"error: run {run.run} failed: {run.reason}" in shown.stderr) == (1, True)
    assert "n1" in shown.stdout
    with connect(folder) as record:
        verdicts = {node.node: node.verdict for node in evaluation_in(record, run).nodes}
    assert verdicts == {"n0": "not asked", "n1": "declined"}


def test_what_cannot_be_evaluated_so_is_refused(folder, tmp_path):
    begun = training() + '[model]\ninitial = "run:digits"\n'
    with connect(folder) as record:
        for model, wanted, given, text in (
            ("begin.safetensors", Wanted(), None, "name a specification with it"),
            ("no such", Wanted(), None, "neither a file nor a run"),
            ("digits@0", BASELINE, None, "say for how many rounds"),
            ("digits", Wanted(rounds=3), None, "ask for it"),
            ("digits-evaluation", BASELINE, None, "trains nothing"),
            ("a.safetensors", Wanted(local_baseline=True, rounds=1), begun, "name the run that trained the model"),
            ("digits", BASELINE, training() + '[exchange]\npayload = "gradient"\n', "no step of their own"),
            ("digits", Wanted(), training() + PRIVATE, "hide their examples"),
        ):
            with pytest.raises(SpecError, match=text):
                evaluation_of(record, model, wanted, given)
        record.export("digits", tmp_path / "digits.safetensors")
        file = evaluation_of(record, str(tmp_path / "digits.safetensors"), Wanted(), training(extra=PERSONAL))
        older = evaluation_of(record, "personal@1", Wanted())
        strange = evaluation_of(record, "digits", Wanted(nodes=("n7",)))
        blind = evaluation_of(record, "digits", Wanted(), training(on_nodes="false"))
    with forked_workers():
        with pytest.raises(SpecError, match=r"model\.initial: 2 tensors .* stay on the nodes.* name the run"):
            simulate(file, NODES, data_dir=folder, processes=1)
        with pytest.raises(SpecError, match=r"evaluation\.only: 2 tensors stay .* ended with version 2"):
            simulate(older, NODES, data_dir=folder, processes=1)
        with pytest.raises(SpecError, match=r"evaluation\.nodes: n7: no node has this name; there are n0, n1"):
            simulate(strange, NODES, data_dir=folder, processes=1)
        with pytest.raises(SpecError, match=r"^evaluation\.only: task 'digits' .* evaluate_on_nodes = true$"):
            simulate(blind, NODES, data_dir=folder, processes=1)


def test_daemons_that_are_killed_come_to_the_same_figures(folder, tmp_path):
    (tmp_path / "digits.toml").write_text(training())
    with connect(folder) as record:
        record.export("digits", tmp_path / "digits.safetensors")
        whole, personal = (evaluation_in(record, f"{name}-evaluation") for name in ("digits", "personal"))
    with Federation(tmp_path / "federation", nodes=NODES + 1) as federation:
        federation.start()
        federation.stop_node(NODES)
        assert federation.wait(federation.submit(training("personal", extra=PERSONAL)))["state"] == "completed"
        federation.stop_node(0)
        federation.stop_coordinator()
        coordinator = federation.start_coordinator(env={"COVEY_FAULTS": "update-recorded"})
        node = federation.start_node(0, env={"COVEY_FAULTS": "trained"})
        federation.start_node(NODES)
        federation.wait_connected(NODES + 1)
        place = ["--data-dir", federation.coordinator_dir]
        run = federation.cli("run", "evaluate", "personal", "--local-baseline", *place).strip()
        assert (coordinator.wait(120), node.wait(120)) == (-9, -9)
        federation.start_coordinator()
        federation.start_node(0)
        assert federation.wait(run, timeout_s=120)["state"] == "completed"
        with connect(federation.coordinator_dir) as record:
            shown = evaluation_in(record, run)
            assert shown.took_part == personal.took_part
            assert (shown.metrics, shown.alone, shown.gains) == (personal.metrics, personal.alone, personal.gains)
            (without,) = shown.nodes[NODES:]
            assert (without.node, without.verdict) == ("n2", "declined")
            assert "does not have what stayed on it (2.bias, 2.weight) of run" in without.reason
            assert record.audit(run).ok
        given = [tmp_path / "digits.safetensors", "--spec", tmp_path / "digits.toml", *place]
        said = federation.cli("run", "evaluate", *given, "--nodes", "n0", "--wait", "--json", timeout_s=120)
        (first, *others) = json.loads(said)["nodes"]
        assert (first["node"], first["metrics"]) == ("n0", dict(whole.took_part[0].metrics))
        assert {node["verdict"] for node in others} == {"not asked"}
