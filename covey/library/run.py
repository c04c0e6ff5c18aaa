"""One run as an object: what it is, how it goes, what came of it, and what it is told."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from covey.client.connection import Connection
from covey.client.export import OnBytes
from covey.client.models.best import best_version
from covey.client.models.continuing import continuation
from covey.client.models.evaluating import Wanted, evaluation_of
from covey.client.models.evaluations import Evaluation, evaluation_in
from covey.client.reading.figures import read_figures
from covey.client.reading.names import VersionName
from covey.client.reading.site_log import SiteLine
from covey.client.specification import Specification
from covey.client.values import Change, Contribution, Deleted, Json, LogLine, Round, RoundDetail, Run, Update, Version
from covey.client.watch import OnLost
from covey.errors import RunFailed
from covey.figures import QUANTILES
from covey.library.progress import progress_of
from covey.library.records import Records

if TYPE_CHECKING:
    from torch import Tensor

    from covey.client.audit.verify import AuditReport

ROUND_COLUMNS = ("round", "state", "seconds", "accepted", "rejected", "declined", "lost", "late", "bytes_received")
UPDATE_COLUMNS = ("round", "node", "verdict", "share", "bytes", "reason")


class FederatedRun:
    """A run of a federation. Its properties are as of the newest `refresh`, `watch`, `wait` or `stop`.

    Args:
        connection: The federation; it stays the caller's to close.
        run: The run as it was read.
    """

    def __init__(self, connection: Connection, run: Run) -> None:
        self._connection, self._run = connection, run

    @property
    def id(self) -> str:
        """Names it for ever."""
        return self._run.run

    @property
    def name(self) -> str:
        """As its specification has it."""
        return self._run.name

    @property
    def state(self) -> str:
        """`queued`, `running`, `completed`, `failed`, `stopped`, or `interrupted`."""
        return self._run.state

    @property
    def reason(self) -> str:
        """Why it is in that state, or what it waits for."""
        return self._run.reason

    @property
    def spec(self) -> Json:
        """Its specification."""
        return self._run.spec

    @property
    def value(self) -> Run:
        """All that is known of it, as a plain frozen value."""
        return self._run

    def refresh(self) -> FederatedRun:
        """Read it again; itself."""
        self._run = self._connection.run(self.id)
        return self

    def watch(self, *, on_lost: OnLost | None = None) -> Iterator[Change]:
        """What changes, until the run has ended, as `covey.client.Connection.watch`."""
        for change in self._connection.watch(self.id, on_lost=on_lost):
            self._run = change.run
            yield change

    def wait(self, *, progress: bool | None = None) -> FederatedRun:
        """Wait until it has ended; itself.

        Args:
            progress: Show how far it is: in a notebook as a bar, else as lines on standard error; default: in a
                notebook only.

        Raises:
            RunFailed: It failed; the message has the reason.
            Unreachable: The coordinator does not answer, at first or for two minutes.
        """
        if not self._run.ended:
            with progress_of(progress) as show:
                for change in self.watch():
                    show(change)
        if self.state == "failed":
            raise RunFailed(f"run {self.name} ({self.id}) failed: {self.reason}")
        return self

    # -- what came of it

    def rounds(self, *, after: int = 0, limit: int | None = None, newest: bool = False) -> Records[Round]:
        """Its rounds in order, as `covey.client.Connection.rounds`."""
        rounds = self._connection.rounds(self.id, after=after, limit=limit, newest=newest)
        metrics = sorted({f"metrics.{name}" for item in rounds for name in item.metrics})
        return Records(rounds, (*ROUND_COLUMNS, *metrics, "last_reason"))

    def round(self, number: int) -> RoundDetail:
        """One round: who sent what, whether it was accepted, why not, and the version it made."""
        return self._connection.round(self.id, number)

    def updates(self, round: int | None = None) -> Records[dict[str, Any]]:
        """What each node answered, as rows with the fields of `covey.client.values.Update` and the round.

        Args:
            round: Of this round only; default: of all, which is one call for each.
        """
        numbers = [item.round for item in self.rounds()] if round is None else [round]
        rows = [_update_row(number, update) for number in numbers for update in self.round(number).updates]
        return Records(rows, UPDATE_COLUMNS)

    def metrics(self) -> Records[dict[str, Any]]:
        """A curve of each metric: for each evaluated round its number, its version, its time, and the metrics.

        Of a gossip run, for each step of each node: what its training measured, its mass, and how its time went.
        """
        if not self._run.is_coordinated:
            return Records([step.row() for step in self._connection.gossip_steps(self.id)])
        rows = [
            {"round": item.round, "version": item.version, "committed_at": item.committed_at, **item.metrics}
            for item in self.rounds()
            if item.metrics
        ]
        return Records(rows)

    def contributions(self) -> Records[Contribution]:
        """What each node did in it."""
        return Records(self._connection.contributions(self.id))

    def log(self) -> Records[LogLine]:
        """What happened to it, by time."""
        return Records(self._connection.run_log(self.id))

    def logs(self, node: str = "") -> Records[SiteLine]:
        """What its nodes share of their logs, node by node; of one of them with `node`.

        Why a node's lines are not here says `covey.client.Connection.site_log(run, node).explanation`.
        """
        nodes = [node] if node else self.refresh().value.roster
        return Records([line for each in nodes for line in self._connection.site_log(self.id, each).lines])

    def version(self, version: VersionName = "newest") -> Version:
        """A version by its number, `"newest"`, or `"best"` by the run's metric."""
        return self._connection.version(self.id, version)

    def model(self, version: VersionName = "newest", *, best: str = "", lowest: bool = False) -> dict[str, Tensor]:
        """A version's `state_dict`, on the CPU: parameters and buffers by name, checked against its digests.

        Args:
            version: Which one.
            best: A metric: the version with its best value instead.
            lowest: With `best`: the least value is the best one, whatever the metric's name says.

        Raises:
            NotFound: There is none, or its file is not kept any more.
        """
        from safetensors.torch import load_file

        if best:
            version = best_version(self._connection, self.id, best, lowest=lowest)[0].version

        with tempfile.TemporaryDirectory(prefix="covey-model-") as folder:
            path = Path(folder) / "model.safetensors"
            self.export(path, version=version)
            return {name: tensor.clone() for name, tensor in load_file(path).items()}

    def export(
        self, to: str | Path, *, version: VersionName = "newest", node: str = "", on_progress: OnBytes | None = None
    ) -> Version:
        """Write a version as a safetensors file, as `covey.client.Connection.export`."""
        return self._connection.export(self.id, to, version=version, node=node, on_progress=on_progress)

    def statistics(self, quantiles: Sequence[float] = QUANTILES) -> Records[dict[str, Any]]:
        """What a run of method `statistics` says of the nodes' data: a record of each column, then of each label.

        Raises:
            NotFound: It makes none, or has not come to any yet.
        """
        figures = read_figures(self._connection, self.refresh().value)
        return Records(list(figures.records(quantiles)), ("column", "label", "count", "missing", "mean", "std"))

    def audit(self, receipts: Iterable[bytes] = ()) -> AuditReport:
        """Compare all that is shown of it with what was signed."""
        return self._connection.audit(self.id, receipts)

    def track(
        self,
        to: str,
        options: Mapping[str, Any] | None = None,
        *,
        follow: bool = False,
        nodes: bool = True,
        model: bool = False,
        on_lost: OnLost | None = None,
    ) -> int:
        """Tell a tracker its curves, as `covey.library.tracking.track`; how many points it was told now.

        Args:
            to: The tracker and the place: `csv:DIR`, `tensorboard:DIR`.
            options: The tracker's.
            follow: Go on until the run has ended.
            nodes: Also what each node measured.
            model: Also its newest model, when it has ended.
            on_lost: As of `watch`.
        """
        from covey.library.tracking import track

        done = track(self._connection, self.id, to, options, follow=follow, nodes=nodes, model=model, on_lost=on_lost)
        self._run = done.run
        return done.points

    # -- what it is told

    def stop(self) -> FederatedRun:
        """Stop it; its committed versions stay; itself."""
        self._run = self._connection.stop(self.id)
        return self

    def continue_(
        self, rounds: int | None = None, *, spec: Specification | None = None, version: VersionName = "newest"
    ) -> FederatedRun:
        """Submit a run that begins with this one's model, as `covey run continue`; the new run.

        Args:
            rounds: How many it has (updates of an asynchronous run); None: as its specification says.
            spec: Its specification; None: this run's.
            version: Of this run's model.
        """
        return self._submitted(continuation(self.refresh().value, rounds, spec, version=version))

    def evaluate(
        self,
        version: VersionName = "newest",
        *,
        nodes: Sequence[str] = (),
        local_baseline: bool = False,
        rounds: int | None = None,
        spec: Specification | None = None,
    ) -> Evaluation:
        """Let nodes evaluate this run's model on their own data, as `covey run evaluate --wait`; what they measured.

        It is a run of its own, on record as `Evaluation.run`; nothing of this run changes.

        Args:
            version: Of this run's model.
            nodes: Who is asked; none: all.
            local_baseline: Each node also trains alone, and evaluates that beside it.
            rounds: For how many rounds; None: as many as led to the version.
            spec: The training's specification; None: this run's.

        Raises:
            RunFailed: No node could do it; the message has the reasons.
            SpecError: It cannot be done; the message says why.
        """
        wanted = Wanted(tuple(nodes), local_baseline, rounds)
        asked = evaluation_of(self._connection, f"{self.id}@{version}", wanted, spec)
        return self._submitted(asked).wait(progress=False).evaluation()

    def _submitted(self, spec: Mapping[str, Any]) -> FederatedRun:
        """A run that follows from this one."""
        return FederatedRun(self._connection, self._connection.submit(spec))

    def evaluation(self) -> Evaluation:
        """What nodes measured in this run, which only evaluates.

        Raises:
            NotFound: It trains.
        """
        return evaluation_in(self._connection, self.id)

    def delete(self) -> Deleted:
        """Delete it for ever, once it has ended."""
        return self._connection.delete(self.id)

    # -- how it looks

    @override
    def __repr__(self) -> str:
        run = self._run
        reason = f": {run.reason}" if run.reason else ""
        return f"<run {run.name} ({run.run}): {run.state}{reason}, {run.done} of {run.whole} {run.unit}>"

    def _repr_html_(self) -> str:
        run = self._run
        metrics = ", ".join(f"{name} {value:.6g}" for name, value in run.metrics.items() if isinstance(value, float))
        lines = [f"<b>{html.escape(run.name)}</b> <code>{html.escape(run.run)}</code>: {html.escape(run.state)}"]
        lines += [html.escape(text) for text in (run.reason, f"{run.done} of {run.whole} {run.unit}", metrics) if text]
        return f'<progress value="{run.done}" max="{max(run.whole, 1)}"></progress> ' + "<br>".join(lines)


def _update_row(number: int, update: Update) -> dict[str, Any]:
    return {"round": number, **{name: getattr(update, name) for name in update.__dataclass_fields__}}
