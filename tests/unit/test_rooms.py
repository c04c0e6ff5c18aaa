"""What the plan of the house promises of every file, and what no linter looks at."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("aggregation", "benchmarks", "coordinator", "covey", "node", "storage")
MOST_FILES = 18
"""A room has about a dozen; beyond this it is cut."""
MOST_LINES = 400
"""Of a file, which should have about 120: beyond this it is cut."""
PLUG_INS = {"aggregation", "covey/codecs"}
"""A file a plug-in: as many as there are."""
TOOLS = ("benchmarks/", "covey/testing/")
"""They submit and check runs of several modes, as a user would."""
TENSORS = {
    "covey/layout.py",
    "covey/learning/models/state.py",
    "covey/worker/execute/compatibility.py",
    "covey/worker/execute/mix_op.py",
    "covey/worker/execute/next_version.py",
    "covey/worker/files/mapped.py",
}
"""Here "buffers" are tensors of a model's layout."""
GOSSIP = ("node/gossip/", "covey/simulation/gossip/")
"""It has no methods: model and buffers are its files."""
SAYS_NOTHING = {"found", "here", "made", "one", "said", "there"}
"""Names that do not say what a thing is."""


@cache
def sources() -> dict[str, str]:
    """Files of the program by their paths: not those that protoc made, and not through the links."""
    texts = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            is_link = name.startswith(tuple(f"covey/{linked}/" for linked in (*FOLDERS, "protos")))
            if not is_link and "_pb2" not in name:
                texts[name] = path.read_text()
    return texts


def nodes_with(word: str) -> Iterator[tuple[str, ast.AST]]:
    """File and node, of the files that hold the word at all."""
    for name, text in sources().items():
        if word in text and not name.startswith(TOOLS):
            yield from ((name, node) for node in ast.walk(ast.parse(text)))


def compares_modes(node: ast.AST) -> bool:
    """`x.mode == "rounds"`, `mode in ("async", ...)` and the like."""
    if not isinstance(node, ast.Compare):
        return False
    sides = [node.left, *node.comparators]
    is_mode = any(getattr(side, "attr", getattr(side, "id", None)) == "mode" for side in sides)
    constants = [inner.value for side in sides for inner in ast.walk(side) if isinstance(inner, ast.Constant)]
    return is_mode and any(isinstance(value, str) for value in constants)


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ('run.mode == "async"', True),
        ('"rounds" != mode', True),
        ('spec.mode in ("async", "gossip")', True),
        ("run.mode == other.mode", False),
        ('path.mode == 0o600 and kind == "x"', False),
    ],
)
def test_a_comparison_of_modes_is_seen(line: str, is_one: bool) -> None:
    assert any(compares_modes(node) for node in ast.walk(ast.parse(line))) is is_one


def test_modes_are_compared_nowhere() -> None:
    places = [(name, ast.unparse(node)) for name, node in nodes_with("mode") if compares_modes(node)]
    assert places == []


def test_buffers_are_a_part_in_the_default_method_only() -> None:
    constants = [(name, node.value) for name, node in nodes_with('"buffers"') if isinstance(node, ast.Constant)]
    files = {name for name, value in constants if value == "buffers" and not name.startswith(GOSSIP)}
    assert files - TENSORS == {"covey/methods/averaging.py"}


def test_a_room_has_about_a_dozen_files() -> None:
    sizes = Counter(Path(name).parent.as_posix() for name in sources() if not name.endswith("__init__.py"))
    assert len(sizes) > 50
    assert {room: files for room, files in sizes.items() if files > MOST_FILES and room not in PLUG_INS} == {}


def test_a_file_is_not_too_long() -> None:
    lengths = {name: len(text.splitlines()) for name, text in sources().items()}
    assert len(lengths) > 500
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_every_room_says_what_lives_there() -> None:
    rooms = {name: text for name, text in sources().items() if name.endswith("__init__.py")}
    assert [name for name, text in rooms.items() if not ast.get_docstring(ast.parse(text))] == []


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that is given to something, at whatever depth, and the line."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.Attribute(attr=name, value=ast.Name(id="self"), ctx=ast.Store()):
                yield name, node.lineno
            case ast.alias(name=name, asname=other):
                yield other or name, node.lineno
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.ExceptHandler(name=str(name)):
                yield name, node.lineno


@pytest.mark.parametrize(
    "line",
    [
        "found = 1",
        "found: int = 1",
        "a, (found, b) = x",
        "for found in x: pass",
        "[y for found in x]",
        "if (found := x): pass",
        "with x as found: pass",
        "def f(found): pass",
        "def f(*, found=1): pass",
        "lambda found: 1",
        "def found(): pass",
        "async def found(): pass",
        "class found: pass",
        "class A:\n    found: int",
        "self.found = 1",
        "import x as found",
        "from x import found",
        "try: pass\nexcept E as found: pass",
        "match x:\n    case A(found): pass",
        "match x:\n    case [*found]: pass",
    ],
)
def test_a_binding_is_seen(line: str) -> None:
    assert "found" in {name for name, _ in bound_names(ast.parse(line))}


def test_the_use_of_a_name_is_no_binding() -> None:
    assert list(bound_names(ast.parse('found(here.made, one=there["said"])'))) == []


def test_names_say_what_a_thing_is() -> None:
    bindings = [(file, line, name) for file, text in sources().items() for name, line in bound_names(ast.parse(text))]
    assert len(bindings) > 10_000
    assert [binding for binding in bindings if binding[2] in SAYS_NOTHING] == []
