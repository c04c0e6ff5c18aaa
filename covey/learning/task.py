"""What a user writes: the task, that is model, data, loss and metrics."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, ClassVar

from pydantic import JsonValue
from torch import Generator, Tensor, device, int64, nn, uint8
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset, default_collate

from covey.errors import CoveyError, TaskError
from covey.learning.memory import is_out_of_memory, out_of_memory
from covey.learning.returns import described, method_of, require, stats_of
from covey.learning.statistics import Stat
from covey.options import PluginOptions
from covey.plugins import Kind, Pluggable
from covey.spec import TaskSection, TrainingSection
from covey.user_code.place import error_text, place_of

__all__ = [
    "FitResult",
    "FitSettings",
    "LossOutput",
    "NodeData",
    "Progress",
    "Split",
    "Stat",
    "Task",
    "fit_of",
    "last_layer_split",
    "load_task",
    "loss_of",
    "task_errors",
]

Progress = Callable[[int, int, float], object]
"""Takes the steps done, the steps there will be, and the mean loss so far."""


def _ignored(*_: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class NodeData:
    """Where a node's data are, from its operator's `node.toml`; never sent to anybody."""

    paths: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class LossOutput:
    """What `Task.loss` says about one batch.

    Attributes:
        loss: Scalar, the mean over the batch's examples; backward starts here.
        examples: How many examples the mean is over.
        logits: [n, classes, ...], if the task has them.
        targets: [n, ...] integers, if the task has them.
        each: [n], the loss of each example, whose mean is `loss`, if a method is to weigh examples; without it the
            cross entropy of logits and targets is taken, where that has this mean.
    """

    loss: Tensor
    examples: int
    logits: Tensor | None = None
    targets: Tensor | None = None
    each: Tensor | None = None


@dataclass(frozen=True)
class Split:
    """A model cut in two, for methods that need it: `predictor(extractor(x))` is the model."""

    extractor: nn.Module
    predictor: nn.Module


@dataclass(frozen=True)
class FitSettings:
    """One local training, as `Task.fit` and the built-in loop get it.

    Attributes:
        training: The run's [training] section.
        indices: int64 [n], the examples of the data set that are this node's part.
        round: Counts from 1.
        rounds: How many rounds the run has.
        seed: The run's; derive streams from it with `covey.seeds.derive_seed`.
        roster_index: This node's place in the run's roster.
        device: Where to compute.
        progress: To be called now and then (a few times a second is enough) with (steps done, steps in all, mean loss
            so far); default nobody listens.
        each_step: To be called after every step; this is where a cancelled training ends: what it raises ends it.
    """

    training: TrainingSection
    indices: Tensor
    round: int
    rounds: int
    seed: int
    roster_index: int
    device: device
    progress: Progress = _ignored
    each_step: Callable[[], object] = _ignored


@dataclass(frozen=True)
class FitResult:
    """What a local training came to.

    Attributes:
        examples: Examples in the node's part of the data: the update's declared weight.
        steps: Optimizer steps taken.
        metrics: By name; `loss` is that of the training batches.
        parts: What a recipe sends up beside the model.
    """

    examples: int
    steps: int
    metrics: Mapping[str, Stat]
    parts: Mapping[str, Tensor | bytes] = field(default_factory=dict)


class Task(Pluggable):
    """What is learned. A run names a task and its options; each node makes its own from them.

    `model`, and with it the layout, must depend on the options only: the coordinator and all nodes build it,
    each for itself. Methods are called in the worker process, from one thread. What they raise fails this
    node's round with a `TaskError` that carries the text.

    Class attributes:
        own_fit: Whether it has a `fit` of its own; then nobody can ask it for one gradient. Set with the method.
        has_keys: Whether it names the owner of each example (`keys`). Set with the method.
        has_eval_data: Whether nodes can have examples for evaluation (`eval_data`). Set with the method.
        own_collate: Whether it makes batches of examples itself (`collate`). Set with the method.
        has_views: Whether it can change examples at random (`view`). Set with the method.
        stays: Patterns (as of `[exchange] local`) of tensors that never leave a node, whatever a run shares.
    """

    declares: ClassVar[Mapping[str, str]] = {
        "fit": "own_fit",
        "keys": "has_keys",
        "eval_data": "has_eval_data",
        "collate": "own_collate",
        "view": "has_views",
    }
    own_collate: ClassVar[bool] = False
    own_fit: ClassVar[bool] = False
    has_keys: ClassVar[bool] = False
    has_eval_data: ClassVar[bool] = False
    has_views: ClassVar[bool] = False
    stays: ClassVar[tuple[str, ...]] = ()

    class Options(PluginOptions):
        """[task.options]; a task with options declares a subclass under the same name."""

    options: Options

    @abstractmethod
    def model(self) -> nn.Module:
        """A new model on the CPU; the caller has seeded torch."""

    @abstractmethod
    def train_data(self, data: NodeData) -> Dataset[Any]:
        """The node's training examples: a map-style data set, or an `IterableDataset` that is read to its end once.

        A plain `TensorDataset` is fastest: its tensors stay on the device and batches are cut from them.
        """

    def eval_data(self, data: NodeData) -> Dataset[Any] | None:
        """Examples for evaluation on the node, if it has any."""
        return None

    def central_data(self) -> Dataset[Any] | None:
        """Examples for evaluation on the coordinator, if there are any.

        A task whose operator says where they are (`covey coordinator start --path NAME=PATH`) writes
        `def central_data(self, data: NodeData | None = None)`, and finds them in `data.paths`.
        """
        return None

    def common_data(self) -> Dataset[Any] | None:
        """Examples that are the same on every node, if there are any."""
        return None

    def collate(self, examples: list[Any]) -> Any:
        """A batch of a list of examples, in training and evaluation; by default torch's `default_collate`.

        Here texts or boxes of different lengths are padded, or kept as lists. Tensors in tuples, lists, mappings, and
        what has a method `to`, are moved to the device.
        """
        return default_collate(examples)

    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        """The loss of a batch; by default the cross entropy of `model(x)` for a batch (x, y)."""
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            what = (
                f"a mapping with {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else type(batch).__name__
            )
            raise TaskError(f"batches are {what}, and not pairs (x, y): give the task a `loss` of its own")
        x, y = batch
        logits = model(x)
        return LossOutput(_cross_entropy(logits, y), len(y), logits, y)

    def evaluate(self, model: nn.Module, batch: Any) -> Mapping[str, Stat]:
        """Metrics of a batch; by default the loss, and the accuracy where `loss` gives logits and targets."""
        output = loss_of(self, model, batch)
        stats = {"loss": Stat(output.loss.item() * output.examples, output.examples)}
        if output.logits is not None and output.targets is not None:
            correct = output.logits.argmax(1) == output.targets
            stats["accuracy"] = Stat(correct.sum().item(), correct.numel())
        return stats

    def labels(self, dataset: Dataset[Any]) -> Tensor | None:
        """int64 [n], a label for each example, for `partition = "dirichlet"` and `"shards"`.

        By default the second tensor of a `TensorDataset`, where that is a vector of integers.
        """
        if not isinstance(dataset, TensorDataset) or len(dataset.tensors) < 2:
            return None
        labels: Tensor = dataset.tensors[1]
        return None if labels.ndim != 1 or labels.is_floating_point() else labels

    def keys(self, dataset: Dataset[Any]) -> Sequence[Hashable] | None:
        """The natural owner of each example (writer, speaker), for `partition = "key"`."""
        return None

    def table(self, dataset: Dataset[Any]) -> Mapping[str, Any] | None:
        """Columns of the examples, for statistics and reports of the data (`covey data report`); None: there are none.

        Name to one number an example, `[n]`: a numpy array (so a structured one has them by its fields), a tensor or a
        list; NaN where it is missing.
        """
        return None

    def split(self, model: nn.Module) -> Split | None:
        """Extractor and predictor, for methods that need them; `model` may have no values ("meta").

        Both are made of the model's own modules. The extractor gives one vector an example: `[n, width]`.
        """
        return None

    def view(self, batch: Any, generator: Generator) -> Any:
        """A batch whose examples are changed at random, each so that its label still holds; by default as they are.

        For methods that compare two views of the same examples. Each call draws anew, from `generator` (on the CPU)
        only; the batch that came is left as it is.
        """
        return batch

    def fit(self, model: nn.Module, data: Dataset[Any], settings: FitSettings) -> FitResult | None:
        """Train `model` in place, instead of the built-in loop.

        None (the default) leaves it to the loop.
        """
        return None


def last_layer_split(model: nn.Module) -> Split | None:
    """A sequence of layers whose last one, a linear layer, predicts; None where the model is nothing of the kind."""
    if not isinstance(model, nn.Sequential) or len(model) < 2 or not isinstance(model[-1], nn.Linear):
        return None
    return Split(model[:-1], model[-1])


def loss_of(task: Task, model: nn.Module, batch: Any) -> LossOutput:
    """What a task's `loss` says of a batch.

    Raises:
        TaskError: It returned something else than a `LossOutput` with a scalar; the message says what to return.
    """
    output, what = task.loss(model, batch), method_of(task, "loss")
    require(output, LossOutput, what, "return LossOutput(loss, examples), and logits and targets if there are any")
    if not isinstance(output.loss, Tensor) or output.loss.ndim:
        should = "its loss is one number, the mean over the batch, such as functional.cross_entropy(logits, y)"
        raise TaskError(f"{what} returned a LossOutput whose loss is {described(output.loss)}; {should}")
    if isinstance(output.examples, bool) or not isinstance(output.examples, Real | Tensor) or not output.examples > 0:
        raise TaskError(
            f"{what} returned a LossOutput with {described(output.examples)} as examples; give how many examples the "
            "loss is the mean of, such as len(y)"
        )
    return output


def fit_of(task: Task, model: nn.Module, data: Dataset[Any], settings: FitSettings) -> FitResult | None:
    """A task's own training, if it has one.

    Raises:
        TaskError: It returned something else than a `FitResult`; the message says what to return.
    """
    result = task.fit(model, data, settings)
    if result is None:
        return None
    what = method_of(task, "fit")
    require(result, FitResult, what, 'return FitResult(examples, steps, {"loss": Stat(total, count)}), or None')
    for name, least in (("examples", 1), ("steps", 0)):
        value = getattr(result, name)
        if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
            raise TaskError(f"{what} returned a FitResult with {described(value)} as {name}; give a whole number")
    return replace(result, metrics=stats_of(result.metrics, what))


TASKS = Kind("task", "covey.tasks", Task, "task")


def load_task(section: TaskSection, *, allow_path: bool = False) -> Task:
    """The task that a run names.

    Args:
        section: The run's [task].
        allow_path: Whether the operator here allows `package.module:Class`.

    Raises:
        PluginError: Not installed here, cannot be imported, or not a task.
        SpecError: Its options are wrong.
        TaskError: Its constructor failed.
    """
    with task_errors(f"task {section.name!r}"):
        return TASKS.make(section.name, section.options, allow_path=allow_path)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    try:
        return functional.cross_entropy(logits, y)
    except (IndexError, RuntimeError, ValueError) as error:
        if advice := _labels_advice(logits, y):
            cause = str(error).rstrip(".")
            raise TaskError(f"the cross entropy of model(x) and y: {cause}; {advice}") from error
        raise


IGNORED = -100
"""A label that the cross entropy passes over, as torch has it."""


def _labels_advice(logits: Tensor, y: Tensor) -> str:
    """What to do about labels of which there is no cross entropy; empty: it is something else."""
    if logits.is_cuda or not isinstance(y, Tensor):
        return ""  # a device that has failed answers nothing more
    if logits.dim() != 2 or y.dim() != 1 or len(y) != len(logits):
        shapes = f"model(x) is {tuple(logits.shape)}, and y is {tuple(y.shape)}"
        return f"{shapes}: labels are a vector [n], and model(x) has a score a class [n, classes]"
    if y.dtype not in (int64, uint8):
        return f"labels are {y.dtype}: make them int64 (y.long()), or give the task a `loss` of its own"
    known, classes = y.long()[y.long() != IGNORED], logits.shape[1]
    if not len(known):
        return ""
    low, high = int(known.min()), int(known.max())
    if low >= 0 and high < classes:
        return ""
    return f"labels go from {low} to {high}, and the model has {classes} outputs: labels are 0 to {classes - 1}"


def central_data_of(task: Task, data: NodeData) -> Dataset[Any] | None:
    """The task's central data; a method that takes an argument is told where they are."""
    takes: Callable[..., Dataset[Any] | None] = task.central_data
    return takes(data) if inspect.signature(takes).parameters else takes()


def collate_of(task: Task) -> Callable[[list[Any]], Any] | None:
    """What makes batches of the task's examples; None: torch's own."""
    return task.collate if task.own_collate else None


@contextmanager
def task_errors(what: str) -> Iterator[None]:
    """Turn what the task's own code raises into a `TaskError` that says where it came from."""
    try:
        yield
    except CoveyError:
        raise
    except SystemExit as error:
        raise TaskError(f"{what}: the code called sys.exit({error.code!r})") from error
    except Exception as error:
        if is_out_of_memory(error):
            raise out_of_memory(what, error, place_of(error)) from error
        raise TaskError(f"{what}: {error_text(error)}") from error
