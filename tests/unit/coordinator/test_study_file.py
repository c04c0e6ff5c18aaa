"""The file of studies as commands change it: what it says otherwise, and what people wrote beside it, stays."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.coordinator.study_file import StudiesFile, Study, with_study
from covey.errors import SpecError

WRITTEN = """# our studies
[studies.brain]   # the first one
# hospitals that signed
nodes = [
    "n1",
    "n2",  # since May
]
admins = ["alice"]

# the second one
[studies."heart.2"]
nodes = ["*"]
"""


def read(text):
    return dict(StudiesFile.model_validate(tomllib.loads(text)).studies)


def test_comments_and_the_other_studies_stay():
    changed = with_study(WRITTEN, "brain", Study(nodes=("n1",), members=("bob",), max_runs=2))
    assert changed == (
        "# our studies\n[studies.brain]   # the first one\n# hospitals that signed\n"
        'nodes = ["n1"]\nmembers = ["bob"]\nmax_runs = 2\n\n# the second one\n[studies."heart.2"]\nnodes = ["*"]\n'
    )
    gone = with_study(changed, "brain", None)
    assert gone == '# our studies\n\n# the second one\n[studies."heart.2"]\nnodes = ["*"]\n'
    assert with_study("", "brain", Study(nodes=())) == "[studies.brain]\nnodes = []\n"


@pytest.mark.parametrize(
    "text",
    [
        'studies.brain.nodes = ["n1"]\n',
        'studies = { brain = { nodes = ["n1"] } }\n',
        '[studies]\nbrain.nodes = ["n1"]\n',
    ],
)
def test_a_study_that_is_written_in_another_way_is_left_to_its_author(text):
    with pytest.raises(SpecError, match="change it by hand"):
        with_study(text, "brain", Study(nodes=("n2",)))


NAMES = st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=3, unique=True).map(tuple)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b.c", "a-b"]), st.none() | st.tuples(NAMES, st.none() | st.just(3)))))
def test_whatever_is_changed_the_file_says_it(changes):
    text, wanted = WRITTEN, read(WRITTEN)
    for name, fields in changes:
        study = Study(nodes=fields[0], max_runs=fields[1]) if fields is not None else None
        text = with_study(text, name, study)
        wanted |= {name: study} if study is not None else {}
        if study is None:
            wanted.pop(name, None)
        assert read(text) == wanted
