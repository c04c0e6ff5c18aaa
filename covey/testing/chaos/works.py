"""The runs that are disturbed, and what each owes at its end."""

from __future__ import annotations

from dataclasses import dataclass

PATIENT = "rejoin_s = 600.0\ndeadline_s = 3600.0\nhard_deadline_s = 7200.0"
"""Nobody is given up: the same updates are accepted as in an undisturbed run."""
BRISK = "quorum = 0.5\nrejoin_s = 1.0\ndeadline_s = 2.0\nhard_deadline_s = 20.0"
"""Shorter than what a suspended node is away for."""
HANDOVER = "covey.testing.chaos.handover:Handover"
ALLOWED = (HANDOVER,)
PARAMETERS = 20_000
"""80 kB: too large to travel with its offer."""
UPDATES_A_ROUND = 2
"""An asynchronous run has so many updates of each node for each round that a synchronous one has."""


@dataclass(frozen=True)
class Work:
    """A kind of run.

    Attributes:
        name: Its name.
        text: For people.
        exact: Whether it owes the model of the undisturbed run.
        keeps_state: Whether nodes keep something for it that they cannot do without.
        mode: Of the specification.
        body: The rest of the specification, in TOML.
        policy: Lines of [rounds].
    """

    name: str
    text: str
    exact: bool
    body: str
    policy: str
    keeps_state: bool = False
    mode: str = "rounds"

    def spec_toml(self, name: str, *, rounds: int, nodes: int, parameters: int, keep_all: bool) -> str:
        """The specification of a run.

        Args:
            name: The run's.
            rounds: How many; of an asynchronous run, `UPDATES_A_ROUND` updates of each node for each.
            nodes: How many there are.
            parameters: Of the models of `synthetic`.
            keep_all: Whether all updates are kept, so that it can be replayed.
        """
        updates = UPDATES_A_ROUND * rounds * nodes
        if self.mode == "async":
            sections = f"[async]\nupdates = {updates}\nmin_nodes = 1\n[rounds]\n{self.policy}\n"
        else:
            least = nodes if self.exact else 1
            sections = f"[rounds]\ncount = {rounds}\nmin_nodes = {least}\n{self.policy}\n"
        body = self.body.replace("PARAMETERS", str(parameters))
        keep = "[keep]\nupdates = 1000000\n" if keep_all else ""
        return f'name = "{name}"\nmode = "{self.mode}"\nseed = 7\n{body}\n{sections}{keep}'


SYNTHETIC = '[task]\nname = "synthetic"\noptions = { parameters = PARAMETERS }\n[evaluation]\nevery = 10'
DIGITS = '[task]\nname = "digits"\n[training]\nlearning_rate = 0.1\nbatch_size = 32\n[evaluation]\nevery = 10'
TRAINED = DIGITS + '\n[data]\npartition = "dirichlet"\nalpha = 1.0'
GRADIENTS = DIGITS.replace("[evaluation]", 'local_steps = 1\n[exchange]\npayload = "gradient"\n[evaluation]')
KARDAM = '[aggregation]\nname = "kardam"\noptions = { f = 0 }'
BUFFERED = '[aggregation]\nname = "buffered"\noptions = { k = 2 }\n[server_optimizer]\nname = "momentum"'
SCAFFOLD = '[method]\nname = "scaffold"\n[weights]\nby = "equal"'

WORKS = {
    work.name: work
    for work in (
        Work("rounds", "synchronous rounds, nobody is given up", True, SYNTHETIC, PATIENT),
        Work(
            "scaffold", "a method that keeps state on nodes", True, f"{TRAINED}\n{SCAFFOLD}", PATIENT, keeps_state=True
        ),
        Work(
            "phases",
            "a method of two phases",
            True,
            f'{TRAINED}\n[method]\nname = "{HANDOVER}"',
            PATIENT,
            keeps_state=True,
        ),
        Work("deadline", "rounds with a quorum and a short deadline", False, SYNTHETIC, BRISK),
        Work("kardam", "asynchronous, kardam", False, f"{GRADIENTS}\n{KARDAM}", "rejoin_s = 5.0", mode="async"),
        Work(
            "buffered",
            "asynchronous, updates are held",
            False,
            f"{GRADIENTS}\n{BUFFERED}",
            "rejoin_s = 5.0",
            mode="async",
        ),
    )
}
