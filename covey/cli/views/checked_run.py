"""What a submission would come to."""

from __future__ import annotations

from typing import Any

from covey.cli.views.listing import Column, listing, pairs, safe_text
from covey.cli.views.words import amount
from covey.client.models.checking import CheckedNode, CheckedRun


def checked_run(checked: CheckedRun) -> list[Any]:
    """What one should know of it, and a line a node."""
    rows = [(node.node, "connected" if node.is_connected else "away", _why(node)) for node in checked.nodes]
    more = checked.nodes_count - len(checked.nodes)
    return [
        pairs(
            [
                ("run", safe_text(checked.spec["name"])),
                ("mode", checked.spec["mode"]),
                ("model", amount(checked.model_bytes) if checked.model_bytes else ""),
                ("exchange", safe_text(checked.exchange)),
                ("to know", safe_text(checked.notes)),
                ("waits for", safe_text(checked.waits_for)),
                ("nodes", f"{checked.ready} of {checked.nodes_count} are connected and could take it"),
            ]
        ),
        *listing([Column("NODE"), Column("STATE"), Column("WHY NOT", below="narrow")], rows),
        *([safe_text(f"and {more} nodes more")] if more else []),
    ]


def _why(node: CheckedNode) -> Any:
    return safe_text("; ".join(filter(None, [node.refusal, f"maybe: {node.remark}" if node.remark else ""])))
