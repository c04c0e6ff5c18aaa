"""What an adversary among peers sends in place of its model, in a drill."""

from __future__ import annotations

from pathlib import Path

import structlog

from covey.aggregation.attacks import ATTACKS, AttackContext
from covey.aggregation.matrix import Row, UpdateMatrix
from covey.errors import LayoutError, RunFailed
from covey.layout import Layout
from covey.learning.models.state import map_behind
from covey.vectors import FunctionVector, TensorVector, all_finite
from covey.worker.execute.next_version import write_model
from covey.worker.files.mapped import MappedModel
from covey.worker.jobs.mixtures import Forgery, MixJob, MixResult

log = structlog.get_logger(room="worker")


def forged(job: MixJob, forgery: Forgery) -> MixResult:
    """The body that an attack makes of a node's own. Vectors that travel behind the model are honest.

    An adversary that knows too little for its attack sends its own model.

    Raises:
        PluginError: The attack is not installed here.
        SpecError: Its options are wrong.
        LayoutError: The node's own file is not of the run's layout.
    """
    order, layout = forgery.attack, Layout.from_json(job.layout)
    base, behind = MappedModel(job.base, layout), map_behind(job.base, layout)
    models = [model for path in forgery.known if (model := _opened(path, layout)) is not None]
    rows = [Row(str(place), 1 / len(models), model) for place, model in enumerate(models)]
    context = AttackContext(
        round=job.step + 1,
        seed=forgery.seed,
        node=forgery.place,
        nodes=order.nodes,
        attackers=order.attackers,
        known=UpdateMatrix(rows) if rows else None,
        receiver=_opened(forgery.receiver, layout) if forgery.receiver is not None else None,
    )
    attack = ATTACKS.make(order.name, order.options, allow_path=True)  # it is this machine's operator who orders it
    try:
        vector = attack.vector(base, context)
    except RunFailed as error:
        log.warning("DRILL: this body is honest: the attack knows too little", attack=order.name, reason=str(error))
        vector = base
    change = FunctionVector(base.d, lambda columns: vector.read(columns) - base.read(columns))
    travelling = [TensorVector(row) for row in behind.vectors]
    written = write_model(
        job.out, layout, base, change, base.raw_buffers, synced=job.synced, behind=travelling, stamp=behind.stamp
    )
    return MixResult(written.artifact, written.model_sha256, 0.0)


def _opened(path: Path, layout: Layout) -> MappedModel | None:
    """A model that came; None: it cannot be used."""
    try:
        model = MappedModel(path, layout)
    except LayoutError:
        return None
    return model if all_finite(model) else None
