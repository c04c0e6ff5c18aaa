"""Nodes, studies and admins, for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from covey.cli.views.contributions import SHORT, counts, counts_columns, counts_line
from covey.cli.views.event_lines import event_lines
from covey.cli.views.listing import Column, listing, pairs, safe_text
from covey.cli.views.times import day, when
from covey.cli.views.words import adversary_text, amount, state_text
from covey.client.values import Admin, Node, NodeDetail, NodeWork, Study, TokenInfo


def node_table(nodes: Iterable[Node]) -> list[Any]:
    """One line a node; with a column DRILL where there is an adversary."""
    listed = list(nodes)
    drills = any(node.drill for node in listed)
    return listing(
        [
            Column("NODE"),
            Column("STATE"),
            *([Column("DRILL")] if drills else []),
            Column("LAST SEEN"),
            Column("ACCEPT", right=True),
            *counts_columns(SHORT),
            Column("VERSION", below="narrow"),
            Column("VALID UNTIL", below="narrow"),
            Column("DEVICE", below="narrow"),
            Column("MEMORY", right=True, below="narrow"),
            Column("GPU MEMORY", right=True, below="narrow"),
            Column("DOES", below="always"),
            Column("LAST REASON", below="always"),
        ],
        [
            (
                node.node,
                state_text(node.state),
                *([adversary_text(node.drill)] if drills else []),
                when(node.last_seen_at),
                str(node.accepted),
                *counts(node),
                safe_text(node.version),
                day(node.certificate_expires_at),
                safe_text(node.device),
                amount(node.memory_bytes) if node.memory_bytes else "",
                amount(node.gpu_memory_bytes) if node.gpu_memory_bytes else "",
                safe_text(work_text(node.work)),
                safe_text(node.last_reason),
            )
            for node in listed
        ],
    )


def admin_table(admins: Iterable[Admin]) -> list[Any]:
    """One line an admin or auditor."""
    return listing(
        [Column(name) for name in ("NAME", "ROLE", "STATE", "ENROLLED", "VALID UNTIL")],
        [
            (
                admin.name,
                admin.role,
                state_text(admin.state),
                when(admin.enrolled_at),
                day(admin.certificate_expires_at),
            )
            for admin in admins
        ],
    )


def token_table(tokens: Iterable[TokenInfo]) -> list[Any]:
    """One line a join token."""
    return listing(
        [
            *(Column(name) for name in ("TOKEN", "NODE", "ROLE", "STATE", "LEFT", "EXPIRES")),
            Column("CREATED", below="narrow"),
        ],
        [
            (
                token.id,
                token.node,
                token.role,
                state_text(token.state),
                f"{token.uses_left} of {token.uses}",
                when(token.expires_at),
                when(token.created_at),
            )
            for token in tokens
        ],
    )


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


def node_details(detail: NodeDetail) -> list[Any]:
    """One node, and what happened to it."""
    node = detail.node
    facts = pairs(
        [
            ("node", node.node),
            ("state", state_text(node.state)),
            ("enrolled", when(node.enrolled_at)),
            ("last seen", when(node.last_seen_at)),
            ("certificate until", when(node.certificate_expires_at)),
            ("covey", node.version),
            ("device", node.device),
            ("runs at once", node.max_runs or ""),
            ("memory", amount(node.memory_bytes) if node.memory_bytes else ""),
            ("GPU memory", amount(node.gpu_memory_bytes) if node.gpu_memory_bytes else ""),
            ("tasks", ", ".join(node.tasks)),
            ("drill", adversary_text(node.drill) if node.drill else ""),
            ("updates", ", ".join(filter(None, [f"{node.accepted} accepted", counts_line(node)]))),
            ("does", work_text(node.work)),
            ("last reason", node.last_reason),
        ]
    )
    return [facts, event_lines(detail.events)]


def work_text(work: Iterable[NodeWork]) -> str:
    """What a node does now, run by run, on one line."""
    return "; ".join(_work(item) for item in work)


def _work(item: NodeWork) -> str:
    step = f" {item.step}/{item.steps}" if item.steps else ""
    moved = [f"{amount(item.bytes_received)} received"] if item.bytes_received else []
    moved += [f"{amount(item.bytes_sent)} sent"] if item.bytes_sent else []
    of = f"{item.phase}{step} for round {item.round} of {item.name} ({item.run}) since {when(item.since)}"
    return ", ".join([of, *moved])
