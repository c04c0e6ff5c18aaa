"""scikit-learn's linear models for Covey: their coefficients are the tensors of the model."""

from typing import Any

import numpy as np
import torch
from pydantic import Field
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import SGDClassifier
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from covey.learning.statistics import Stat
from covey.learning.task import FitResult, FitSettings, NodeData, Task


class Classify(Task):
    """Digits by `SGDClassifier` (logistic regression): nodes go on from the run's coefficients by `partial_fit`."""

    class Options(Task.Options):
        """What a run may set under [task.options]."""

        alpha: float = Field(default=1e-4, ge=0, description="weight of the l2 penalty")

    options: Options

    def model(self) -> nn.Module:
        """`weight` is scikit-learn's `coef_` [classes, features], `bias` its `intercept_` [classes]."""
        model = nn.Linear(64, 10)
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        return model

    def train_data(self, data: NodeData) -> TensorDataset:
        """Four images of five; on real nodes: whatever the operator has."""
        return digits(slice(0, 1437))

    def central_data(self) -> TensorDataset:
        """The others."""
        return digits(slice(1437, None))

    def fit(self, model: nn.Linear, data: Dataset[Any], settings: FitSettings) -> FitResult:
        """scikit-learn's own steps instead of Covey's loop."""
        x, y = (tensor[settings.indices].numpy() for tensor in data.tensors)
        rate, seed = settings.training.learning_rate, (settings.seed + settings.round) % 2**32
        learner = SGDClassifier(
            loss="log_loss", alpha=self.options.alpha, learning_rate="constant", eta0=rate, random_state=seed
        )
        learner.partial_fit(
            x[:1], y[:1], classes=np.arange(10)
        )  # now it knows all classes, also those that are not here
        learner.coef_[:], learner.intercept_[:] = model.weight.detach().numpy(), model.bias.detach().numpy()
        for _ in range(settings.training.local_epochs or 1):
            learner.partial_fit(x, y)
            settings.each_step()
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(learner.coef_))
            model.bias.copy_(torch.from_numpy(learner.intercept_))
        wrong = int((learner.predict(x) != y).sum())
        return FitResult(len(y), settings.training.local_epochs or 1, {"error": Stat(wrong, len(y))})


def digits(rows: slice) -> TensorDataset:
    """float32 [n, 64] in 0..1 and int64 [n]."""
    x, y = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(x[rows] / 16, dtype=torch.float32), torch.tensor(y[rows]))


class Regress(Task):
    """Least squares, exactly: the mean over all examples of z z' and z y is all that `LinearRegression` needs."""

    def model(self) -> nn.Module:
        """Nothing yet."""
        return NormalEquations(10)

    def train_data(self, data: NodeData) -> TensorDataset:
        """float32 [442, 10] measurements, and float32 [442] progress of the disease after a year."""
        x, y = load_diabetes(return_X_y=True)
        scaled = x * len(x) ** 0.5  # each of variance 1
        return TensorDataset(torch.tensor(scaled, dtype=torch.float32), torch.tensor(y, dtype=torch.float32))

    def central_data(self) -> TensorDataset:
        """The same: how well the line fits."""
        return self.train_data(NodeData())

    def fit(self, model: nn.Module, data: Dataset[Any], settings: FitSettings) -> FitResult:
        """The means over this node's examples; the run's rule weighs them by how many these are."""
        x, y = (tensor[settings.indices].double() for tensor in data.tensors)
        z = with_one(x)
        with torch.no_grad():
            model.gram.copy_(z.T @ z / len(z))
            model.moment.copy_(z.T @ y / len(z))
        return FitResult(len(z), 1, {"loss": Stat(0.0, len(z))})

    def evaluate(self, model: nn.Module, batch: Any) -> dict[str, Stat]:
        """Mean squared error."""
        x, y = batch
        return {"mse": Stat((model(x) - y).square().sum().item(), len(y))}


class Diagnose(Task):
    """`LogisticRegression` by Newton's method: each round is one step of it on all data, whatever each node has."""

    class Options(Task.Options):
        """What a run may set under [task.options]."""

        penalty: float = Field(default=1 / 569, gt=0, description="1 / (C n), with n the examples of all nodes")

    options: Options

    def model(self) -> nn.Module:
        """Nothing yet: all coefficients are 0."""
        return NormalEquations(30, self.options.penalty)

    def train_data(self, data: NodeData) -> TensorDataset:
        """float32 [569, 30] measurements, and float32 [569]: whether the tumour is benign."""
        x, y = load_breast_cancer(return_X_y=True)
        scaled = (x - x.mean(0)) / x.std(0)  # of data that nobody has together, both are a run of statistics
        return TensorDataset(torch.tensor(scaled, dtype=torch.float32), torch.tensor(y, dtype=torch.float32))

    def central_data(self) -> TensorDataset:
        """The same: how well the model fits."""
        return self.train_data(NodeData())

    def labels(self, dataset: Dataset[Any]) -> Tensor:
        """By which an experiment deals the examples to nodes."""
        return dataset.tensors[1].long()

    def fit(self, model: nn.Module, data: Dataset[Any], settings: FitSettings) -> FitResult:
        """Gradient g and Hessian H of this node's mean loss at the run's coefficients w: H, and H w - g."""
        x, y = (tensor[settings.indices].double() for tensor in data.tensors)
        z, w = with_one(x), model.coefficients()
        p = torch.sigmoid(z @ w)
        hessian, gradient = z.T @ (z * (p * (1 - p))[:, None]) / len(z), z.T @ (p - y) / len(z)
        with torch.no_grad():
            model.gram.copy_(hessian)
            model.moment.copy_(hessian @ w - gradient)
        return FitResult(len(z), 1, {"loss": Stat(log_loss(z @ w, y), len(z))})

    def evaluate(self, model: nn.Module, batch: Any) -> dict[str, Stat]:
        """Mean log loss, and accuracy."""
        x, y = batch
        score = model(x)
        return {"loss": Stat(log_loss(score, y), len(y)), "accuracy": Stat(((score > 0) == y).sum().item(), len(y))}


def log_loss(score: Tensor, y: Tensor) -> float:
    """Of all examples together."""
    return nn.functional.binary_cross_entropy_with_logits(score, y, reduction="sum").item()


class NormalEquations(nn.Module):
    """`coefficients()` are scikit-learn's `coef_` and, last, `intercept_`, which has no penalty."""

    def __init__(self, features: int, penalty: float = 0.0) -> None:
        super().__init__()
        self.penalty = penalty
        self.gram = nn.Parameter(torch.zeros(features + 1, features + 1))
        self.moment = nn.Parameter(torch.zeros(features + 1))

    def coefficients(self) -> Tensor:
        """float64 [features + 1]; of least norm, where there are several."""
        penalized = torch.ones(len(self.gram), dtype=torch.float64)
        penalized[-1] = 0
        gram = self.gram.double() + self.penalty * penalized.diag()
        return torch.linalg.lstsq(gram, self.moment.double()[:, None], driver="gelsd").solution[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        """Predictions [n]."""
        return (with_one(x.double()) @ self.coefficients()).float()


def with_one(x: Tensor) -> Tensor:
    """[n, features + 1]: the intercept's column is behind the others."""
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
