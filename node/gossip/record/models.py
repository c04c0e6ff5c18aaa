"""Which models stay on a node's disk, for people: of every so many steps, as `[gossip] keep_every` says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Engine

from covey.artifact import Artifact, artifact_to_json
from covey.gossip.ledger import Batch
from covey.node.gossip.ports import Snapshot
from covey.node.gossip.record.reader import read_models
from covey.node.gossip.record.rows import Row


class Keeping:
    """Chooses the models that stay, and holds their files.

    Args:
        engine: Of the record, which has those that stay already.
        every: Models of steps 0, K, 2K, ... stay; 0: none.
        hold: Holds a model's file, from now on.
    """

    def __init__(self, engine: Engine, every: int, hold: Callable[[Artifact], object]) -> None:
        self._every, self._hold = every, hold
        models = read_models(engine)
        self._newest = max(models, default=-1)
        self.digests = {model.digest for model, _ in models.values()}
        """Of the models that stay."""
        for model, _ in models.values():
            hold(model)

    def row(self, snapshot: Snapshot[Artifact], batches: Sequence[Batch]) -> Row | None:
        """What a publication leaves on record of its model; None: it does not stay.

        Of a step that is published again, as a node does that leaves, the first model stays.
        """
        step = snapshot.step
        if not self._every or step % self._every or step <= self._newest:
            return None
        self._newest = step
        self._hold(snapshot.model)
        self.digests.add(snapshot.model.digest)
        units = snapshot.machine.exchange.kept + sum(batch.units for batch in batches)
        return {"step": step, "units": str(units), "artifact": artifact_to_json(snapshot.model)}
