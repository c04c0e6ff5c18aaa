"""What a simulation is told, what it tells, and what is refused before it begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from covey.errors import NotFound, SpecError
from covey.simulation.adversaries import Attack, checked
from covey.simulation.arrival_order import Staleness
from covey.spec import RunSpec
from covey.worker.jobs.runs import Description

MAX_NODES = 100_000


@dataclass(frozen=True)
class RayCluster:
    """A cluster of Ray's.

    Attributes:
        address: Of its head (`HOST:PORT`, `auto`, `ray://HOST:PORT`); None: one is started on this machine, for as long
            as the simulation takes.
    """

    address: str | None = None


@dataclass(frozen=True)
class Plan:
    """What to simulate.

    Attributes:
        spec: The run.
        nodes: How many nodes.
        folder: Where the record is kept; new, or an earlier simulation's.
        processes: How many train at a time; None: one for each core.
        attacks: What the last nodes do, in order.
        paths: Where the task finds the nodes' data: the same for all.
        staleness: Mode `async`: after how many versions updates arrive; None: in the order of their assignments.
        device: What the processes compute on.
        events: The folder for the log of what the run's machine was told; None: there is none.
        written: The keys of the specification that somebody wrote: those that nothing reads are refused.
        model: The file that `[model] initial` names; None: it names none.
        ray: The cluster whose machines train; None: this machine does, by processes of its own.
        until: Mode `rounds`: the run is left as it is, running on record, once so many rounds are committed and
            evaluated; None: it goes on to its end.
        resumed: The id of a run in the folder that was left so, or was killed: it goes on with its next round.
        lasting: What nodes keep between rounds is in the folder until the run has ended, and is taken up with it.
        begins: Called once the specification is known to be right, and the run begins.
        told: Called before it begins with each thing that one should know: what it will have spent of its privacy.
    """

    spec: RunSpec
    nodes: int
    folder: Path
    processes: int | None = None
    attacks: Sequence[Attack] = ()
    paths: Mapping[str, str] = field(default_factory=dict)
    staleness: Staleness | None = None
    device: str = "cpu"
    events: Path | None = None
    written: tuple[str, ...] = ()
    model: Path | None = None
    ray: RayCluster | None = None
    until: int | None = None
    resumed: str = ""
    lasting: bool = False
    told: Callable[[str], None] = lambda note: None
    begins: Callable[[Plan], None] = lambda plan: None


@dataclass(frozen=True)
class SimulationProgress:
    """How far a simulation is.

    Attributes:
        mode: Of the run.
        done: Rounds committed, or updates decided on.
        whole: How many there will be.
        answered: Nodes that have answered in the open round; 0 in mode `async`.
        invited: Nodes that take part in it; 0 in mode `async`.
        metrics: Of the newest evaluated version.
    """

    mode: str
    done: int
    whole: int
    answered: int
    invited: int
    metrics: Mapping[str, float]


Watch = Callable[[SimulationProgress], None]


def names_of(nodes: int) -> list[str]:
    """Names of so many nodes: n0, n1, ... with as many digits as the last one needs, so that they sort by number."""
    width = len(str(max(nodes - 1, 0)))
    return [f"n{index:0{width}}" for index in range(nodes)]


def checked_attacks(plan: Plan) -> list[Attack]:
    """The attacks, with what they need known, of a plan that can work as far as can be seen without its task. Blocking.

    Raises:
        SpecError: It cannot; the message says why.
        PluginError: An attack is not installed.
        NotFound: Ray is not.
    """
    if not plan.spec.facts.coordinated:
        raise SpecError(f'mode: "{plan.spec.mode}" has no coordinator; covey simulate, and covey.simulate, simulate it')
    if not 1 <= plan.nodes <= MAX_NODES:
        raise SpecError(f"--nodes {plan.nodes}: from 1 to {MAX_NODES} nodes can be simulated")
    if plan.processes is not None and plan.processes < 1:
        raise SpecError(f"--processes {plan.processes}: at least one process must train")
    if plan.ray is not None and plan.device != "cpu":
        raise SpecError(f'--device {plan.device}: on a Ray cluster nodes train on "cpu" only')
    if plan.ray is not None and find_spec("ray") is None:
        raise NotFound("--engine ray needs Ray: pip install 'covey[ray]'")
    if plan.staleness is not None and plan.spec.facts.synchronous:
        raise SpecError(f'--staleness: only mode = "async" has any, and the run\'s is "{plan.spec.mode}"')
    return checked(plan.attacks, plan.nodes)


def require_enough(plan: Plan, description: Description) -> None:
    """Refuse a run that would wait for more nodes than there are.

    Args:
        plan: The plan.
        description: What the worker says of the specification.

    Raises:
        SpecError: It would; the message says for what.
    """
    spec = plan.spec
    spec.task.require_known(names_of(plan.nodes))
    spec.evaluation.require_known(names_of(plan.nodes))
    for needed, why in (
        (spec.min_nodes, f"[{spec.facts.section}] min_nodes = {spec.min_nodes}"),
        (
            description.aggregator_min,
            f"[aggregation] {spec.aggregation.name} needs {description.aggregator_min} updates",
        ),
    ):
        if needed > plan.nodes:
            raise SpecError(f"the run would wait for ever: {why}, and --nodes is {plan.nodes}")
