"""FedGen: the coordinator learns to generate features from the nodes' predictors, and nodes train with them as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from covey.errors import SpecError, TaskError
from covey.learning.models.entries import unwrapped
from covey.learning.recipe import PlainRecipe, Recipe, RecipeContext
from covey.learning.task import LossOutput
from covey.methods.averaging import MODEL, Averaging
from covey.methods.contract import Combination, FinishContext, LabelCounts, Made, Part, PluginOptions, RunForm
from covey.methods.fedensemble import Ensemble, needs_models
from covey.methods.generator_state import GENERATOR, TRAINING, Broadcast, GeneratorState, generator_layouts
from covey.methods.label_counts import LABELS, count_labels, counts_layout, objection_to, with_noise
from covey.methods.latents import Generator, Lesson, Teacher, Teachers, draw_labels, spread, train
from covey.methods.one_shot import RETRAINED, head_layout, retrained
from covey.methods.predictor import Predictor, predictor_in, predictor_of, widths
from covey.metrics import Totals, counted
from covey.parts import COLLECT
from covey.seeds import derive_seed

LEAST_WEIGHT = 1e-4
"""Below which the weights of the node's terms do not decay, as in the authors' code."""


class FedGenOptions(PluginOptions):
    """Options of `fedgen`; the defaults are the authors' for MNIST."""

    labels: LabelCounts = "off"
    """What nodes tell of how many examples of each label they have: nothing (all labels then count the same on every
    node), with noise that is drawn once and kept, or as it is. A node's operator has to allow it."""
    epsilon: float = Field(default=1.0, ge=0.01, le=20)
    """Of the noise on the counts: their differential privacy for one example more or less, spent once in a run."""
    draw: Literal["uniform", "observed"] = "uniform"
    """Which labels are generated: all that somebody has alike (the authors' code), or as often as there are examples
    of them (the paper)."""
    teacher: Teacher = "avg_logits"
    """What the generator is trained by: the nodes' mean logits (the paper), or each node's likelihood, weighted by its
    part of the label's examples (the authors' code)."""
    noise: int = Field(default=32, ge=1, le=4096)
    """Numbers of noise that go into the generator."""
    hidden: int = Field(default=256, ge=1, le=65536)
    """Units of the generator's hidden layer."""
    steps: int = Field(default=50, ge=1, le=100_000)
    """Of the generator, a round."""
    batch_size: int = Field(default=32, ge=2, le=65536)
    """Features a step, of the generator and on the nodes."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Of the generator (Adam)."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Of the generator: L2, added to its gradient."""
    diversity: float = Field(default=1.0, ge=0)
    """Weight of the diversity loss."""
    alpha: float = Field(default=10.0, ge=0)
    """Weight, on the nodes, of the predictor's loss on generated features."""
    beta: float = Field(default=10.0, ge=0)
    """Weight, on the nodes, of how far an example's prediction is from that of features generated for its label."""
    decay: float = Field(default=0.98, gt=0, le=1)
    """By which alpha, beta and the generator's learning rate are multiplied after each round."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """How much of the generator that nodes get is what they got the round before (an exponential moving average of
    weights and statistics, against forgetting); 0: they get the newest as it is."""
    one_shot: bool = False
    """Of a run of one round: also retrain the averaged predictor on generated features, and measure it and the ensemble
    of the nodes' models beside the mean."""


class FedGen(Averaging):
    """Data-free distillation: a generator of latent features, trained from the nodes' predictors, regularises training.

    Zhu, Hong and Zhou, "Data-Free Knowledge Distillation for Heterogeneous Federated Learning" (ICML 2021, arXiv
    2105.10056). The model is an extractor and a predictor (`Task.split`). When a round's updates are in, the
    coordinator trains G (equation 4): z = G(y, noise) is to be what the accepted nodes' predictors, together, take for
    y, while the features of one batch stay apart (diversity loss). From the next round on nodes minimise (equation 5)

        loss + alpha CE(h(G(y', noise)), y') + beta KL(softmax h(G(y, noise)) || p(x)),

    with y' drawn as for the generator, y the example's own label, h the predictor; only h learns from the second
    term, and the third's target is fixed. What travels beside plain averaging's parts: `generator` down (G, and the
    shares by which labels are drawn), `labels` up (int64 `[classes]`), where they are asked for. Where only the
    predictor travels (the extractor stays on the nodes) nothing else changes, and nodes may have different extractors.

    From the authors' code, not the paper: the third term, the weights 10 and 10 with their decay, noise uniform in [0,
    1) instead of normal, labels alike. Deviations: counts are those of all of a node's examples and not of its last
    batches; a node's counts weigh as much as its update does, whatever they add up to, so that nobody gains by large
    ones; the weights of "weighted_nll" are each example's own (in the authors' code they are averaged over the batch);
    a generator that is not finite after a round is dropped for the one before (metric `generator/discarded`).

    Counts of labels or not, an update of the last layer tells which labels a node has (Zhao, Mopuri and Bilen, arXiv
    2001.02610): leaving the counts out hides their size, and no more.
    """

    Options = FedGenOptions
    options: FedGenOptions
    modes: ClassVar[frozenset[str]] = frozenset({"rounds"})

    @property
    def label_counts(self) -> LabelCounts:
        """As the option says."""
        return self.options.labels

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """Whatever hides the nodes' predictors, or lets one of them teach that has no part in the model."""
        yield from needs_models(run, "fedgen")
        for key, rule in (("aggregation.name", run.rule), ("aggregation.fallback", run.fallback)):
            if rule is not None and rule.robust:
                text = "a robust rule leaves out what the generator would learn all the same; choose "
                yield key, text + '"mean", or the method "none"'
        if self.options.one_shot and run.spec.rounds_in_all != 1:
            yield "method.options.one_shot", "a one-shot run has one round; write rounds.count = 1, or leave it out"

    def parts(self, form: RunForm) -> Sequence[Part]:
        """Those of plain averaging; the generator, what its training goes on from, and what nodes tell of labels."""
        predictor, options = predictor_of(form, "fedgen"), self.options
        broadcast, training = generator_layouts(self._generator(predictor))
        parts = [
            *super().parts(form),
            Part(name=GENERATOR, layout=broadcast, down=1, keep=frozenset({"version"})),
            Part(name=TRAINING, layout=training, keep=frozenset({"version"})),
        ]
        if options.one_shot:
            parts.append(Part(name=RETRAINED, layout=head_layout(predictor), keep=frozenset({"version"})))
        if options.labels != "off":
            layout = counts_layout(predictor.classes)
            noisy = frozenset({"node-always"} if options.labels == "noisy" else ())
            parts.append(Part(name=LABELS, layout=layout, up=1, combine=COLLECT, keep=noisy))  # type: ignore[arg-type]
        return parts

    def objection(self, parts: Mapping[str, Any], form: RunForm) -> str:
        """Counts that are none."""
        return objection_to(parts[LABELS]) if LABELS in parts else ""

    def recipe(self, phase: int) -> Recipe | None:
        """The terms of generated features, and the counts."""
        return Guided(self.options)

    def finish(self, parts: Mapping[str, Tensor], state: Mapping[str, Tensor], context: FinishContext) -> Made:
        """The generator, trained from the accepted nodes' predictors; metrics `generator/NAME`."""
        predictor, seed = predictor_of(context.form, "fedgen"), context.form.spec.seed
        network = self._generator(predictor, seed)
        now = GeneratorState(network, state.get(GENERATOR), state.get(TRAINING))
        teachers, metrics = _teachers(predictor, context), dict[str, Totals]()
        source = torch.Generator().manual_seed(derive_seed(seed, "fedgen", context.round))
        if teachers is not None:
            metrics = self._lesson(network, now, teachers, context.round, source)
            if not now.is_finite:  # a predictor with absurd values teaches nothing, and must not stay for ever
                network = self._generator(predictor, seed)
                now = GeneratorState(network, state.get(GENERATOR), state.get(TRAINING))
                metrics = {"generator/discarded": (1.0, 1.0)}
        kept = {GENERATOR: now.broadcast(), TRAINING: now.training()}
        if self.options.one_shot:
            head, measured = self._one_shot(predictor, network, now, context, source)
            return Made({**kept, RETRAINED: head}, {**metrics, **measured})
        return Made(kept, metrics)

    def _lesson(
        self, network: Generator, now: GeneratorState, teachers: Teachers, number: int, source: torch.Generator
    ) -> dict[str, Totals]:
        """Train the generator in round `number`; what came of it."""
        options = self.options
        shares = teachers.shares if options.draw == "observed" else (teachers.shares > 0).float()
        lesson = Lesson(
            options.steps,
            options.batch_size,
            options.learning_rate * options.decay ** (number - 1),
            options.weight_decay,
            options.teacher,
            options.diversity,
            shares / shares.sum(),
        )
        teacher, diversity = train(network, now.optimizer, teachers, lesson, source)
        now.trained(options.ema, lesson.labels)
        return {
            "generator/teacher_loss": (teacher, 1.0),
            "generator/diversity_loss": (diversity, 1.0),
            "generator/spread": (spread(network, network.classes, source), 1.0),
        }

    def _one_shot(
        self,
        predictor: Predictor,
        network: Generator,
        now: GeneratorState,
        context: FinishContext,
        source: torch.Generator,
    ) -> tuple[Tensor, Mapping[str, Totals]]:
        """The retrained predictor as a flat vector, and what it and the ensemble of the nodes' models come to."""
        if context.model is None:
            raise SpecError("method.options.one_shot: there is no model whose predictor could be retrained")
        model = context.model()
        options = self.options
        head = retrained(predictor, predictor.of(model), network, now.labels, options.steps, options.batch_size, source)
        measured = {}
        if context.updates:
            ensemble = Ensemble([update.model() for update in context.updates.values()])
            measured = {f"ensemble/{name}": value for name, value in counted(context.evaluate(ensemble)).items()}
        with torch.no_grad():
            for name, value in predictor.of(model).items():
                value.copy_(head[name])
        measured |= {f"retrained/{name}": value for name, value in counted(context.evaluate(model)).items()}
        return torch.cat([value.reshape(-1) for value in head.values()]), measured

    def _generator(self, predictor: Predictor, seed: int | None = None) -> Generator:
        options = self.options
        if seed is None:
            with torch.device("meta"):
                return Generator(predictor.classes, options.noise, options.hidden, predictor.width)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(seed, "fedgen", 0))
            return Generator(predictor.classes, options.noise, options.hidden, predictor.width)


def _teachers(predictor: Predictor, context: FinishContext) -> Teachers | None:
    """The accepted nodes' predictors, with counts that weigh as their updates do; None: there is none."""
    values, counts = [], []
    for update in context.updates.values():
        own = update.parts[LABELS].float() if LABELS in update.parts else torch.ones(predictor.classes)
        if update.share > 0 and own.sum() > 0:
            values.append(predictor.values(context.base, update.parts[MODEL]))
            counts.append(own * (update.share / own.sum()))
    return Teachers(predictor, values, torch.stack(counts)) if values else None


class Guided(PlainRecipe):
    """Adds the two terms of generated features to each step's loss, and counts labels; as `FedGen` has it."""

    def __init__(self, options: FedGenOptions) -> None:
        self._options = options

    def begin(self, context: RecipeContext) -> None:
        """Open the generator, if a trained one came down."""
        if context.task is None:
            raise TaskError('"fedgen" needs the task that names the predictor')
        options, self._context = self._options, context
        self._predictor = predictor_in(context.task, context.model, "fedgen", f"task {type(context.task).__name__}")
        width, self._classes = widths(self._predictor)
        factor = options.decay ** (context.round - 1)
        self._alpha, self._beta = (max(LEAST_WEIGHT, w * factor) if w else 0.0 for w in (options.alpha, options.beta))
        self._came: Broadcast | None = None
        if (flat := context.inputs.parts.get(GENERATOR)) is not None:
            network = Generator(self._classes, options.noise, options.hidden, width)
            device = next(unwrapped(context.model).parameters()).device
            self._came = Broadcast.load(network, flat, device)

    def loss(self, model: nn.Module, batch: Any, base: LossOutput) -> Tensor:
        """The task's own, and what generated features add to it."""
        came, options, source = self._came, self._options, self._context.generator
        if came is None:
            return base.loss
        logits, labels = base.logits, base.targets
        if logits is None or labels is None or labels.ndim != 1:
            raise TaskError('"fedgen" needs logits and one label an example in what `loss` returns (LossOutput)')
        total = base.loss
        if self._beta:
            z = came.sample(labels, source)
            with torch.no_grad():
                target = functional.softmax(self._predictor(z), 1)
            total = total + self._beta * functional.kl_div(
                functional.log_softmax(logits, 1), target, reduction="batchmean"
            )
        if self._alpha:
            drawn = draw_labels(came.labels, options.batch_size, source).to(logits.device)
            ratio = options.batch_size / self._context.training.batch_size
            of_drawn = functional.cross_entropy(self._predictor(came.sample(drawn, source)), drawn)
            total = total + self._alpha * ratio * of_drawn
        return total

    def finish(self) -> Mapping[str, Tensor | bytes]:
        """The counts, if they are asked for; those with noise are drawn once and kept."""
        if self._options.labels == "off":
            return {}
        if self._options.labels == "exact":
            return {LABELS: count_labels(self._context, self._classes, "fedgen")}
        state = self._context.inputs.state
        if LABELS not in state:
            counts = count_labels(self._context, self._classes, "fedgen", cut=True)
            state[LABELS] = with_noise(counts, self._options.epsilon)
        return {LABELS: state[LABELS]}
