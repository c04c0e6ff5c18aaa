"""What stays with virtual nodes of the models of simulated runs, kept with the record for later evaluations."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from covey.artifact import artifact_from_json, artifact_to_json
from covey.node.assignments.record.local_state import MAX_RUNS
from covey.node.updates import State
from covey.parts import LOCAL, slot
from covey.simulation.files import NodeFiles

FOLDER, INDEX = "staying", "nodes.json"


class Staying:
    """The files of the newest runs, a folder for each.

    Args:
        data_dir: The simulation's.
    """

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / FOLDER

    def keep(self, run: str, nodes: Mapping[str, tuple[State, NodeFiles]]) -> None:
        """Keep what stays with the nodes of a run that has ended, by node; of most runs that is nothing. Blocking."""
        kept = {node: (state[slot(LOCAL)], files) for node, (state, files) in nodes.items() if slot(LOCAL) in state}
        if not kept:
            return
        folder = self._root / run
        folder.mkdir(parents=True, exist_ok=True)
        for artifact, files in kept.values():
            if not (folder / artifact.digest).exists():
                os.link(files.path(artifact.digest), folder / artifact.digest)
        index = {node: artifact_to_json(artifact) for node, (artifact, _) in kept.items()}
        (folder / INDEX).write_text(json.dumps(index))
        for old in sorted(self._root.iterdir(), key=lambda path: path.stat().st_mtime_ns)[:-MAX_RUNS]:
            shutil.rmtree(old)

    def lend(self, run: str, node: str, files: NodeFiles) -> State:
        """Give a node what stayed with the node of its name; nothing, where nothing is kept of that. Blocking."""
        folder = self._root / run
        if not run or not (folder / INDEX).exists():
            return {}
        index = json.loads((folder / INDEX).read_text())
        if node not in index:
            return {}
        artifact, path = artifact_from_json(index[node]), files.scratch(0)
        os.link(folder / artifact.digest, path)
        files.adopt(path, artifact)
        return {slot(LOCAL): artifact}
