"""`statistics`: counts, means, variances, histograms and quantiles of the nodes' data, as a run without a model."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from covey.codecs.contract import MessagePrivacy
from covey.errors import PolicyError, TaskError
from covey.figures import DEFAULT_BINS, LARGEST, TOTALS, FiguresForm
from covey.layout import Layout, TensorSpec
from covey.learning.models.state import tensors_of
from covey.learning.recipe import PlainRecipe, RecipeContext
from covey.methods.contract import Combination, FinishContext, LabelCounts, Made, Method, Part, PluginOptions, RunForm
from covey.methods.label_counts import count_labels
from covey.methods.statistics.answers import NARROWEST, Numbers, figures_answer, numel, objection_to, ranges_answer
from covey.methods.statistics.combining import grid_of, totals_of
from covey.methods.statistics.noise import Noise, noisy_answer, noisy_objection, noisy_totals
from covey.parts import COLLECT
from covey.seeds import derive_seed
from covey.vectors.secret_noise import KEY_BYTES, subkey

ANSWER, GRID = "answer", "grid"
ROUNDS = 2
Name = Annotated[str, Field(min_length=1, max_length=100)]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]


class StatisticsOptions(PluginOptions):
    """Options of `statistics`."""

    columns: tuple[Name, ...] = Field(min_length=1, max_length=256)
    """Names of the columns, of those that the task has (`Task.table`)."""
    min_k: int = Field(default=10, ge=1, le=1_000_000)
    """Nothing is said of fewer examples. A node's operator can want more ([policy] min_k)."""
    bins: int = Field(default=DEFAULT_BINS, ge=2, le=1024)
    """Of each column's histogram; quantiles are as exact as a bin is wide."""
    labels: int = Field(default=0, ge=0, le=10_000)
    """How many labels there are, of which the examples are counted; 0: none are."""
    ranges: dict[str, tuple[Number, Number]] = Field(default_factory=dict)
    """Column to [low, high] of its histogram, instead of the range that the nodes say."""
    epsilon: float | None = Field(default=None, gt=0, le=1000)
    """Counts and sums get noise on each node, so that its whole answer is (epsilon, delta)-differentially private; then
    `ranges` has every column, and there is one round. None: exact figures, above `min_k`."""
    delta: float = Field(default=0.0, ge=0, lt=1)
    """With `epsilon`: 0: Laplace noise; more: Gaussian noise, of which there is less where there are many columns."""
    reproducible: bool = False
    """With `epsilon`: draw the noise from the run's seed, which the coordinator knows: for tests and simulations. The
    run is not private, and says so."""

    @model_validator(mode="after")
    def _fits(self) -> StatisticsOptions:
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("columns names one twice")
        if self.epsilon is None and (self.delta or self.reproducible):
            raise ValueError("delta and reproducible are of noise; give epsilon, or leave them out")
        if self.epsilon is not None and (without := [name for name in self.columns if name not in self.ranges]):
            raise ValueError(
                f"noise is as large as an example can count: with epsilon, ranges needs [low, high] of {without[0]!r}, "
                "at whose ends values beyond count"
            )
        for name, (low, high) in self.ranges.items():
            if name not in self.columns:
                raise ValueError(f"ranges has {name!r}, which is not in columns")
            if not low < high:
                raise ValueError(f"the range of {name!r} ends before it begins; write [low, high]")
            if high - low < NARROWEST:
                raise ValueError(f"the range of {name!r} is narrower than {NARROWEST:g}; take another unit")
        return self

    @property
    def form(self) -> FiguresForm:
        """What is asked of the data."""
        return FiguresForm(self.columns, self.bins, self.labels)

    @property
    def noise(self) -> Noise | None:
        """How much noise there is; None: none."""
        return None if self.epsilon is None else Noise(self.form, self.epsilon, self.delta)

    @property
    def rounds(self) -> int:
        """How many it takes: with noise nobody says any range."""
        return ROUNDS if self.epsilon is None else 1

    @property
    def grid(self) -> Numbers:
        """The ranges that are given, where all are: float64 `[columns, 2]`."""
        return np.array([self.ranges[name] for name in self.columns])


class Statistics(Method):
    """Counts, means, variances, histograms and quantiles of the nodes' data; no model is trained, and none travels.

    The task says what columns its examples have (`Task.table`). Round 1: each node says the range of each column, the
    k-th smallest and the k-th largest value, rounded outwards to a 16th of their distance, and nothing of fewer than
    2 k values (part `answer`). The coordinator makes bins of equal width from the least to the largest of these (part
    `grid`). Round 2: each node says how many examples
    have a value, their mean, the sum of squared distances from it, how many are in each bin, and how many have each
    label. Part `totals`, a file of the version, has what these come to (`covey.figures`).

    Nothing is said of fewer than k examples, with k the larger one of the run's `min_k` and the operator's; it is
    hidden on the node, before it leaves (`covey.methods.statistics.hiding`):

    - a node with fewer than k examples declines, and so does one that is asked for a column that is its labels, unless
      its operator allows exact counts of these and the run does not count them already: two tables tell more than one;
    - a cell of 1 to k - 1 examples is hidden, and so are further ones, the smallest first, until four cells
      and k examples are hidden in a table, since what is hidden would else follow from the total;
    - where a value is rarer than k, mean and variance are those of the histogram as it is said, each bin's examples at
      its middle: the values' own are equations, which whole numbers may solve in one way only;
    - of a column with fewer than k values, or with at most three different ones of which one is rarer than k, nothing
      is said: number, mean and variance would tell how rare.

    Two runs over data that differ in one example differ by it: this hides small cells, and is no differential privacy.
    With `epsilon` there is: all figures get noise on the node, within ranges that the specification gives, and none is
    hidden; there is one round (`covey.methods.statistics.noise`).

    With `min_k` 1 means and variances are exact. Variances over nodes are put together from those within
    nodes and from the distances of their means. A quantile is read off the histogram, with the values between which it
    lies, wherever the hidden examples are.

    A hostile node can say what it likes of data that nobody else sees: counts are bounded by its own number of
    examples, and its range widens the bins of all (`ranges` gives them instead).
    """

    Options = StatisticsOptions
    options: StatisticsOptions
    global_model: ClassVar[bool] = False

    @property
    def statistics(self) -> bool:
        """That is all they are."""
        return True

    @property
    def label_counts(self) -> LabelCounts:
        """Exact, above k, or with noise, where labels are counted."""
        counts: LabelCounts = "exact" if self.options.epsilon is None else "noisy"
        return counts if self.options.labels else "off"

    @property
    def privacy(self) -> MessagePrivacy | None:
        """That of an answer with noise."""
        noise = self.options.noise
        return None if noise is None else noise.privacy

    @property
    def reproducible(self) -> bool:
        """As the options say."""
        return self.options.reproducible

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """More or fewer rounds than it takes."""
        if run.spec.rounds.count != self.options.rounds:
            why = "with noise asks once" if self.options.noise else "asks for the ranges first, then for the figures"
            yield "rounds.count", f'"statistics" {why}; write {self.options.rounds}'

    def local(self, model: nn.Module) -> frozenset[str]:
        """All of the task's model: it is not used."""
        return frozenset(tensors_of(model))

    def parts(self, form: RunForm) -> Sequence[Part]:
        """What a node says; the bins, for the nodes; the totals."""
        asked = self.options.form
        return (
            Part(name=ANSWER, layout=_layout(ANSWER, numel(asked)), up=1, combine=COLLECT),
            Part(name=GRID, layout=_layout(GRID, 2 * len(asked.columns)), down=1, keep=frozenset({"version"})),
            Part(name=TOTALS, layout=_layout(TOTALS, asked.numel), keep=frozenset({"version"})),
        )

    def recipe(self, phase: int) -> Telling:
        """No training: what a node says of its data."""
        return Telling(self.options)

    def objection(self, parts: Mapping[str, Any], form: RunForm) -> str:
        """Numbers that cannot be, or that are below the run's own k."""
        answer, noise = parts[ANSWER].numpy(), self.options.noise
        if noise is not None:
            return noisy_objection(answer, noise, self.options.min_k)
        return objection_to(answer, self.options.form, self.options.min_k)

    def finish(self, parts: Mapping[str, Tensor], state: Mapping[str, Tensor], context: FinishContext) -> Made:
        """The bins after the first round, the totals after the second."""
        form = self.options.form
        answers: list[Numbers] = [update.parts[ANSWER].numpy() for update in context.updates.values()]
        if self.options.noise is not None:
            grid = self.options.grid
            totals = noisy_totals(answers, grid, form)
        elif GRID not in state:
            grid, totals = grid_of(answers, form, self.options.ranges), np.zeros(form.numel)
        else:
            grid = state[GRID].numpy().reshape(-1, 2)
            totals = totals_of(answers, grid, form)
        metrics = {"examples": (float(totals[1]), 1.0)} if totals[0] else {}
        return Made({GRID: torch.from_numpy(grid.reshape(-1).copy()), TOTALS: torch.from_numpy(totals)}, metrics)


def _layout(name: str, numbers: int) -> Layout:
    return Layout.of([TensorSpec(name, "float64", (numbers,))])


class Telling(PlainRecipe):
    """What one node says; it takes no step."""

    trains = False

    def __init__(self, options: StatisticsOptions) -> None:
        self._options = options

    def begin(self, context: RecipeContext) -> None:
        """Look at the data.

        Raises:
            PolicyError: There are too few examples to say anything, or a column is the labels, and more would be said
                of them than the operator allows.
            TaskError: The task has no such columns, or no such labels; or a column's values are too near each other.
        """
        options, form = self._options, self._options.form
        k, examples = max(options.min_k, context.inputs.min_k), context.size
        if examples < k:
            raise PolicyError(f"this node has fewer than {k} examples, of which nothing is to be said (min_k)")
        grid, noise = context.inputs.parts.get(GRID), options.noise
        columns = _columns(context, form, cut=noise is not None)
        if noise is None:
            _refuse_labels(context, form, columns)
        if noise is not None:
            labels = _labels(context, form, cut=True)
            answer = noisy_answer(columns, labels, options.grid, noise, _key(context, options))
        elif grid is None:
            answer = ranges_answer(examples, columns, form, k)
        else:
            labels = _labels(context, form)
            answer = figures_answer(examples, columns, labels, grid.numpy().reshape(-1, 2), form, k)
        self._answer = torch.from_numpy(answer)

    def finish(self) -> Mapping[str, Tensor | bytes]:
        """The answer, float64."""
        return {ANSWER: self._answer}


def _labels(context: RecipeContext, form: FiguresForm, *, cut: bool = False) -> NDArray[np.int64]:
    if not form.labels:
        return np.zeros(0, np.int64)
    counts: NDArray[np.int64] = count_labels(context, form.labels, "statistics", cut=cut).numpy()
    return counts


def _key(context: RecipeContext, options: StatisticsOptions) -> bytes:
    """A fresh secret; or, where the run is only to look private, what everybody can make of its seed."""
    if not options.reproducible:
        return secrets.token_bytes(KEY_BYTES)
    seed = derive_seed(context.seed, "statistics", context.round, context.roster_index)
    return subkey(seed.to_bytes(KEY_BYTES, "big"), "reproducible")


def _columns(context: RecipeContext, form: FiguresForm, *, cut: bool) -> list[Numbers]:
    table = context.table(cut=cut)
    if table is None:
        kind = type(context.task).__name__
        raise TaskError(f'"statistics" asks for columns, and {kind} names none; give it `table(self, dataset)`')
    if unknown := [name for name in form.columns if name not in table]:
        known = ", ".join(table) or "none"
        raise TaskError(f"this task has no column {unknown[0]!r} (method.options.columns); here it has {known}")
    return [table[name] for name in form.columns]


def _refuse_labels(context: RecipeContext, form: FiguresForm, columns: Sequence[Numbers]) -> None:
    labels = context.labels()
    if labels is None or (context.inputs.label_counts == "exact" and not form.labels):
        return
    for name, values in zip(form.columns, columns, strict=True):
        present = ~np.isnan(values)
        if not present.any() or (values != labels.numpy())[present].any():
            continue
        if form.labels:
            raise PolicyError(f"column {name!r} is the labels, which this run counts already; ask for one of both")
        raise PolicyError(
            f"column {name!r} is the labels; this node's operator allows their counts "
            f'"{context.inputs.label_counts}" ([policy] label_counts in node.toml)'
        )
