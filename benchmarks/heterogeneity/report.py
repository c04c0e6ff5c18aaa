"""The tables: ours with intervals, what was published beside them, and the claim."""

from __future__ import annotations

import math

from benchmarks.heterogeneity.runs import ALPHAS, ENSEMBLE, FEDAVG, FEDGEN, setting
from benchmarks.methods.cases import Outcomes, better, difference, interval, table, values

ROWS = (FEDAVG, "FedProx", ENSEMBLE, "FedDistill+", FEDGEN)
PUBLISHED = {
    0.05: ("87.70 ± 2.07", "87.49 ± 2.05", "88.85 ± 0.68", "86.70 ± 2.27", "91.30 ± 0.74"),
    0.1: ("90.16 ± 0.59", "90.10 ± 0.39", "90.78 ± 0.39", "90.28 ± 0.89", "93.03 ± 0.32"),
    1.0: ("93.84 ± 0.25", "93.83 ± 0.29", "93.91 ± 0.28", "94.73 ± 0.15", "95.52 ± 0.07"),
}
"""Table 1 of the paper: accuracy in percent by the per-client metric, three seeds."""
CLIENT, GLOBAL = METRICS = "client_accuracy", "accuracy"
AIM = 2.0
"""Points that FedGen is to be above FedAvg at alpha 0.1, by the paper's metric."""


def report(outcomes: Outcomes) -> list[str]:
    """Markdown of whatever there is."""
    lines: list[str] = []
    for alpha, methods in ALPHAS.items():
        rows = [row for method in methods for row in _rows(outcomes, alpha, method)]
        lines += ["", *table([setting(alpha), "client, %", "published", "global, %", "seeds"], rows)] if rows else []
    claims = []
    for alpha in ALPHAS:
        if values(outcomes, setting(alpha), FEDGEN, CLIENT) and values(outcomes, setting(alpha), FEDAVG, CLIENT):
            seeds = _paired(outcomes, setting(alpha))
            gain = difference(seeds, setting(alpha), FEDGEN, FEDAVG, CLIENT)
            is_met = gain.mean >= AIM and better(gain) == "reproduced"
            verdict = "met" if is_met else "not met" if math.isfinite(gain.half) else "not met: one pair, no interval"
            claims.append([setting(alpha), f"FedGen - FedAvg, aim {AIM:g}", gain, verdict])
    return (
        [*lines[1:], "", *table(["split", "claim (client metric)", "points", "verdict"], claims)] if claims else lines
    )


def _rows(outcomes: Outcomes, alpha: float, method: str) -> list[list[object]]:
    scores = values(outcomes, setting(alpha), method, CLIENT)
    if not scores:
        return []
    published = dict(zip(ROWS, PUBLISHED[alpha], strict=True))
    rest = [interval(values(outcomes, setting(alpha), method, GLOBAL)), len(scores)]
    rows: list[list[object]] = [[method, interval(scores), published.get(method, ""), *rest]]
    if method == FEDAVG:
        of = [interval(values(outcomes, setting(alpha), method, f"ensemble/{name}")) for name in METRICS]
        rows.append([ENSEMBLE, of[0], published[ENSEMBLE], of[1], len(scores)])
    return rows


def _paired(outcomes: Outcomes, where: str) -> Outcomes:
    """The outcomes of seeds that both methods have."""
    both = [{case.seed for case in outcomes if (case.setting, case.method) == (where, m)} for m in (FEDGEN, FEDAVG)]
    return {case: outcome for case, outcome in outcomes.items() if case.seed in both[0] & both[1]}
