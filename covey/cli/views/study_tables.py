"""Studies as tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from covey.cli.views.listing import Column, listing, pairs, safe_text
from covey.client.values import Study


def study_table(studies: Iterable[Study]) -> list[Any]:
    """One line a study."""
    return listing(
        [
            *(Column(name) for name in ("STUDY", "NODES", "ADMINS")),
            *(Column(name, below="narrow") for name in ("MEMBERS", "AUDITORS", "MOST RUNS")),
        ],
        [
            (
                safe_text(study.name),
                "all" if "*" in study.nodes else str(len(study.nodes)),
                safe_text(", ".join(study.admins)),
                str(len(study.members)),
                str(len(study.auditors)),
                str(study.max_runs or ""),
            )
            for study in studies
        ],
    )


def study_facts(study: Study) -> Any:
    """One study."""
    return pairs(
        [
            ("study", study.name),
            ("nodes", ", ".join(study.nodes)),
            ("shut out", ", ".join(study.evicted)),
            ("admins", ", ".join(study.admins)),
            ("members", ", ".join(study.members)),
            ("auditors", ", ".join(study.auditors)),
            ("runs at once", study.max_runs or ""),
        ]
    )
