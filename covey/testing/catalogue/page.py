"""`docs/methods.md`: everything that a run can name, and what goes with what, by the registry and the checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from covey.gossip.protocols.contract import PROTOCOLS
from covey.plugins import installed
from covey.testing.catalogue import protocols
from covey.testing.catalogue.cases import names
from covey.testing.catalogue.entries import entry_of
from covey.testing.catalogue.pairs import KEYS, pairs

HEAD = """\
# Methods: what a run can name, and what goes with what

Made by `make methods` from what is installed and from what submission refuses; a test holds it to both. Do not edit it.
`covey plugins show KIND NAME` says what options one has. More on the families: [rules](rules.md), [codecs](codecs.md),
[models and local training](models.md), [parts that stay on nodes](personal.md), [distillation](distillation.md),
[recipes](recipes.md), [leaders](leaders.md), [codistillation](codistillation.md),
[representations](representations.md), [statistics](statistics.md), [gossip](gossip.md),
[adversaries](adversaries.md), and [writing one](plugins.md).
"""
FAMILIES: Mapping[str, tuple[str, str]] = {
    "task": ("Tasks", "`[task]`: the model, the data, the loss."),
    "method": (
        "Methods",
        "`[method]`: what is exchanged besides the model, the recipe of local training, and what is kept.",
    ),
    "aggregator": ("Rules", '`[aggregation]` in mode "rounds".'),
    "pre-aggregator": ("In front of a rule", "`[[aggregation.pre]]`."),
    "async-policy": ("Policies", '`[aggregation]` in mode "async".'),
    "server-optimizer": (
        "Server optimizers",
        "`[server_optimizer]`: the step along the direction of a rule or a policy.",
    ),
    "codec": ("Codecs", "`[exchange] codec`."),
    "protocol": ("Protocols", '`[gossip] protocol` in mode "gossip".'),
    "topology": ("Topologies", "`[gossip.topology]`."),
    "mixing": ("Mixing weights", "`[gossip.mixing]`."),
    "local-optimizer": ("Local optimizers", "`[training] optimizer`."),
    "schedule": ("Schedules of the learning rate", "`[training.schedule]`."),
    "partition": ("Partitions", "`[data] partition`: who trains on what, where the data are shared out."),
    "outgoing-filter": ("Outgoing filters", "`[[policy.outgoing]]` in a node's `node.toml`: its operator's, no run's."),
    "attack": ("Attacks", "For drills only: `covey node start --attack`."),
    "tracker": ("Trackers", "Where a run's curves go: `covey run track --to`, see [trackers](trackers.md)."),
}
"""Kind to its heading and a line on where a run names it, in the order of the page."""
TOGETHER = """\
## What goes with what

In a run through a coordinator two go together if a run with both is accepted, whatever else it has to choose. Three
that go together in pairs may still be refused, with the reason, by `covey run submit` and `covey node check --spec`.
"""
AMONG_PEERS = """\
## What goes with a protocol

The same for gossip runs; `[gossip]` may also say what the column of settings has. Memory: most of a node's, daemon and
worker, beyond what training alone takes, in models of 100 MB or more, as the protocol declares it
([measured](gossip.md#memory-of-protocols)).
"""


def page() -> str:
    """The whole page."""
    together = pairs()
    parts = [HEAD, *(_family(kind) for kind in FAMILIES), TOGETHER]
    for kind in KEYS:
        others = [other for other in KEYS if other != kind and any(other in together[kind, n] for n in names(kind))]
        rows = [[n, *(_some(together[kind, n][other], names(other)) for other in others)] for n in names(kind)]
        parts.append(_table([kind, *others], rows))
    return "\n".join([*parts, AMONG_PEERS, _among_peers()])


def _family(kind: str) -> str:
    title, where = FAMILIES[kind]
    entries = [entry_of(plugin) for plugin in installed(kind) if plugin.package == "covey"]
    rows = [[f"`{entry.name}`", entry.summary, entry.source, f"[{entry.name}](../{entry.file})"] for entry in entries]
    return f"## {title}\n\n{where}\n\n{_table(['name', 'what it is', 'source', 'file'], rows)}"


def _among_peers() -> str:
    known = {kind: names(kind) for kind in protocols.KINDS} | {"settings": list(protocols.SETTINGS)}
    rows = []
    for name in names("protocol"):
        goes = protocols.goes_with(name)
        declared = PROTOCOLS.load(name).extra_models
        memory = "not declared" if declared is None else f"{declared:g}"
        rows.append([name, *(_some(goes[kind], of) for kind, of in known.items()), memory])
    return _table(["protocol", *known, "memory"], rows)


def _some(those: Sequence[str], of: Sequence[str]) -> str:
    """Some of a kind, in as few words as it takes."""
    others = [name for name in of if name not in those]
    if not those:
        return "none"
    if not others:
        return "all"
    return _listed(those) if len(those) <= len(others) else f"all but {_listed(others)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
