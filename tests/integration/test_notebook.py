"""The notebook of the examples: its cells work as they are, and what is stored in it came of an execution."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from covey.testing.launch.forks import forked_workers
from covey.testing.library.notebooks import cells, execute

pytestmark = pytest.mark.processes
NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"
MAX_PNG_BYTES = 50_000


def test_its_cells_work(monkeypatch):
    for library in ("sklearn", "pandas", "matplotlib"):
        pytest.importorskip(library, reason="the notebook takes it")
    monkeypatch.setenv("MPLBACKEND", "agg")
    with forked_workers():
        shown, names = execute(NOTEBOOK)
    by_source = {cell.source.splitlines()[-1]: cell for cell in shown}
    assert "nodes: 4 connected; the coordinator is running" in by_source["federation"].html
    assert '<progress value="5" max="5">' in by_source["run"].html
    assert "<th>metrics.accuracy</th>" in by_source["run.rounds()"].html
    assert by_source["run.updates(5)"].html.count("accepted") == 4
    assert by_source["simulated.value.model_sha256 == run.value.model_sha256"].value is True
    (line,) = names["axes"].get_lines()
    assert list(line.get_xdata()) == [1, 2, 3, 4, 5]
    assert line.get_ydata()[-1] == names["run"].value.metrics["accuracy"] > 0.8
    with pytest.raises(Exception, match="no coordinator is running"):
        names["federation"].status()
    names["simulated"].close()


def test_what_is_stored_came_of_one_execution_from_first_to_last():
    known = cells(NOTEBOOK)
    assert [cell["execution_count"] for cell in known] == list(range(1, len(known) + 1))
    outputs = [output for cell in known for output in cell["outputs"]]
    assert "error" not in {output["output_type"] for output in outputs}
    pictures = [
        base64.b64decode(output["data"]["image/png"]) for output in outputs if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 1
    assert pictures[0].startswith(b"\x89PNG")
    assert len(pictures[0]) < MAX_PNG_BYTES
    texts = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]
    assert any("<progress" in text and "completed" in text for text in texts)
