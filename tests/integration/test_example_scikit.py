"""scikit-learn's linear models over four nodes, against scikit-learn with all data."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import covey
from covey.learning.task import NodeData
from covey.library.federation import SimulatedRun
from covey.testing.launch.forks import forked_workers

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "scikit"
NODES = 4


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLE))
    return importlib.import_module("linear_tasks")


def simulated(file: str, folder: Path) -> SimulatedRun:
    with forked_workers():
        run = covey.simulate(EXAMPLE / file, NODES, data_dir=folder, processes=1)
    assert isinstance(run, SimulatedRun)
    assert run.state == "completed", run.reason
    return run


def test_least_squares_are_those_of_all_data(tasks: ModuleType, tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    run = simulated("diabetes.toml", tmp_path / "run")
    model = tasks.Regress().model()
    model.load_state_dict(run.model())
    x, y = (tensor.double().numpy() for tensor in tasks.Regress().central_data().tensors)
    whole = LinearRegression().fit(x, y)
    np.testing.assert_allclose(model.coefficients().detach()[:-1], whole.coef_, atol=1e-3)
    np.testing.assert_allclose(model.coefficients().detach()[-1], whole.intercept_, rtol=1e-6)
    assert run.value.metrics["mse"] == pytest.approx(np.square(whole.predict(x) - y).mean(), rel=1e-6)


def test_newton_s_method_comes_to_the_logistic_regression_of_all_data(tasks: ModuleType, tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    run = simulated("tumours.toml", tmp_path / "run")
    model = tasks.Diagnose().model()
    model.load_state_dict(run.model())
    x, y = (tensor.double().numpy() for tensor in tasks.Diagnose().central_data().tensors)
    whole = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(model.coefficients().detach(), [*whole.coef_[0], *whole.intercept_], atol=1e-4)
    assert run.value.metrics["accuracy"] == pytest.approx(whole.score(x, y))


def test_averaged_classifiers_come_near_one_of_all_data(tasks: ModuleType, tmp_path: Path) -> None:
    from sklearn.linear_model import SGDClassifier

    run = simulated("digits.toml", tmp_path / "run")
    task = tasks.Classify()
    (x, y), (held_x, held_y) = (
        [tensor.numpy() for tensor in data.tensors] for data in (task.train_data(NodeData()), task.central_data())
    )
    whole = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.02, random_state=1, max_iter=20, tol=None)
    assert run.value.metrics["accuracy"] > whole.fit(x, y).score(held_x, held_y) - 0.03
    averaged = {name: tensor.numpy() for name, tensor in run.model().items()}
    whole.coef_, whole.intercept_ = averaged["weight"], averaged["bias"]
    assert whole.score(held_x, held_y) == pytest.approx(run.value.metrics["accuracy"])  # scikit-learn takes them back
