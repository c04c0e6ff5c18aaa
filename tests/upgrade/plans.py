"""The dumps that `make_dumps.py` makes: what is run, and where kill -9 stops it."""

from __future__ import annotations

from dataclasses import dataclass, field

REJOIN_S = 300
"""So that no node counts as lost on a slow machine: a lost node would change the model."""


@dataclass(frozen=True)
class Plan:
    """A run and where it is stopped; fault points as in `covey.faults`."""

    name: str
    spec: str
    coordinator: str
    """The coordinator's fault point."""
    nodes: dict[str, str] = field(default_factory=dict)
    """Fault points of nodes; the others are killed once the coordinator is dead."""
    count: int = 3
    """How many nodes there are."""
    reproducible: bool = True
    """Whether the same run gives the same model again: neither private nor asynchronous."""


def _rounds(name: str, extra: str, *, count: int, min_nodes: int = 3, training: str = "") -> str:
    return f"""\
name = "{name}"
seed = 7
[task]
name = "digits"
options = {{ hidden = 8 }}
[training]
learning_rate = 0.1
batch_size = 64
{training}
[rounds]
count = {count}
min_nodes = {min_nodes}
rejoin_s = {REJOIN_S}
{extra}"""


def _asynchronous(name: str, policy: str, options: str, *, updates: int, min_nodes: int, extra: str = "") -> str:
    return f"""\
name = "{name}"
mode = "async"
seed = 7
[task]
name = "digits"
options = {{ hidden = 8 }}
[training]
learning_rate = 0.5
batch_size = 64
local_steps = 1
[exchange]
payload = "gradient"
[aggregation]
name = "{policy}"
options = {{ {options} }}
[evaluation]
every = 2
[keep]
updates = 100000
[rounds]
rejoin_s = {REJOIN_S}
[async]
updates = {updates}
min_nodes = {min_nodes}
{extra}"""


FEEDBACK = """\
[exchange]
codec = "top-k"
options = { fraction = 0.1 }
[server_optimizer]
name = "momentum"
"""
CENTRED = """\
[exchange]
codec = "fp16"
worker_momentum = 0.5
[aggregation]
name = "centered-clip"
options = { tau = 1000.0 }
"""
"""Nothing is clipped: of what is, the centre has a share, which the audit of 0.1.0 takes for a fault."""
EVERYWHERE = """\
[exchange]
payload = "parameters"
[evaluation]
where = "both"
"""
PRIVATE = """\
[exchange]
payload = "gradient"
codec = "dp-sign"
options = { epsilon = 4.0, delta = 1e-5, clip = 1.0, mechanism = "analytic-gaussian" }
[aggregation]
name = "majority-vote"
[weights]
by = "equal"
[server_optimizer]
name = "sgd"
options = { learning_rate = 0.005 }
"""
MOMENTUM = """\
[server_optimizer]
name = "momentum"
"""

PLANS = (
    # Round 3 of 5: n0's update is on record, n1's is finished and was never offered, n2 has the model and no update.
    # The nodes keep residuals, the coordinator its optimizer's momentum and the change that led to each version.
    Plan(
        "collecting",
        _rounds("collecting", FEEDBACK, count=5),
        coordinator="update-recorded:7",
        nodes={"n1": "journaled:3", "n2": "downloaded:3"},
    ),
    # Round 3 of 5 is closed, and the rule, which has a state, was about to be asked. The nodes keep momentum.
    Plan("aggregating", _rounds("aggregating", CENTRED, count=5), coordinator="aggregate:3"),
    # All 4 rounds are committed, and the last version is not evaluated, here or on the nodes.
    Plan("evaluating", _rounds("evaluating", EVERYWHERE, count=4), coordinator="after-commit:4"),
    # The last round: n0's update is on record, those of n1 and n2 are finished. None of them can ever be made again.
    Plan(
        "private",
        _rounds("private", PRIVATE, count=3, training="local_steps = 1").replace("batch_size = 64", "batch_size = 400"),
        coordinator="update-recorded:7",
        nodes={"n1": "journaled:3", "n2": "journaled:3"},
        reproducible=False,
    ),
    # Eight decisions: a step of three updates was made at least once, and two updates of other nodes are held.
    Plan(
        "buffered",
        _asynchronous("buffered", "buffered", "k = 3", updates=16, min_nodes=3, extra=MOMENTUM),
        coordinator="after-commit:8",
        nodes={"n1": "journaled:3"},
        reproducible=False,
    ),
    # The ninth update is on record, and was neither acknowledged nor decided on.
    Plan(
        "kardam",
        _asynchronous("kardam", "kardam", "f = 1", updates=20, min_nodes=4),
        coordinator="update-recorded:9",
        nodes={"n2": "journaled:3"},
        count=4,
        reproducible=False,
    ),
)
