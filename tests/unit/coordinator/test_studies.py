"""Who takes part in which study, as its operator's file says."""

from __future__ import annotations

import os

import pytest

from covey.coordinator.studies import Studies, read_studies
from covey.coordinator.study_file import Study
from covey.errors import SpecError

BRAIN = '[studies.brain]\nnodes = ["n1", "n2"]\nadmins = ["alice"]\nmembers = ["bob"]\nauditors = ["carol"]\n'


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "studies.toml"
    file.write_text(BRAIN)
    return file


def test_nodes_and_people_of_each_study(path):
    path.write_text(BRAIN + '[studies.heart]\nnodes = ["*"]\nmembers = ["alice"]\n')
    studies = Studies(path)
    assert studies.roles_of("alice") == {"brain": "admin", "heart": "member"}
    assert studies.roles_of("mallory") == {}
    assert studies.scope("brain") == frozenset({"n1", "n2"})
    assert (studies.scope("heart"), studies.scope("")) == (None, None)
    assert studies.scope("gone") == frozenset()


def test_a_change_counts_at_once_and_a_wrong_one_does_not(path):
    studies = Studies(path)
    path.write_text(BRAIN.replace("bob", "dave"))
    os.utime(path, ns=(1, 1))
    assert studies.roles_of("dave") == {"brain": "member"}
    path.write_text("[studies.brain]\nnode = 1\n")
    assert studies.roles_of("dave") == {"brain": "member"}
    path.unlink()
    assert studies.roles_of("dave") == {}


def test_an_eviction_is_kept(path):
    studies = Studies(path)
    kept = studies.with_evicted("brain", "n1")
    assert studies.with_evicted("brain", "n1") == kept
    again = Studies(path, kept)
    assert again.evicted("brain") == {"n1"}
    assert again.evicted("heart") == frozenset()
    assert [again.takes(*asked) for asked in (("brain", "n1"), ("brain", "n2"), ("brain", "n3"), ("", "n1"))] == [
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[studies.brain]\nadmins = ['alice']", "nodes: this key is required"),
        ("[studies.brain]\nnodes = []\nadmin = ['alice']", "admin: unknown key"),
        ("[studies.brain]\nnodes = []\nadmins = ['alice']\nmembers = ['alice']", "alice: name everybody once"),
        ("[studies.brain]\nnodes = []\nmembers = ['*']", "name the people"),
        ("[studies.'a/b']\nnodes = []", "'a/b' cannot be a study's name"),
        ("[studies.'']\nnodes = []", "'' cannot be a study's name"),
        ("[studies", "not valid TOML"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(path, text, message):
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        read_studies(path)


def test_a_run_that_needs_more_nodes_than_its_study_has_is_refused(tmp_path):
    (tmp_path / "studies.toml").write_text('[studies.brain]\nnodes = ["ada", "bob"]\n[studies.all]\nnodes = ["*"]\n')
    studies = Studies(tmp_path / "studies.toml", '{"brain": ["bob"]}')
    studies.require_enough("brain", 1)
    for study in ("all", ""):
        studies.require_enough(study, 1000)
    with pytest.raises(SpecError, match=r"study 'brain' has 1 node \(bob shut out of it for good\): the"):
        studies.require_enough("brain", 2)


def test_a_file_of_studies_that_is_a_link_stays_one_and_keeps_who_may_read_it(tmp_path):
    (tmp_path / "etc").mkdir()
    real, link = tmp_path / "etc" / "studies.toml", tmp_path / "studies.toml"
    real.write_text(BRAIN)
    real.chmod(0o664)
    link.symlink_to(real)
    studies = Studies(link)
    studies.rewrite("brain", None)
    assert (link.is_symlink(), read_studies(real), studies.now()) == (True, {}, {})
    assert real.stat().st_mode & 0o777 == 0o664
    Studies(tmp_path / "new.toml").rewrite("heart", Study(nodes=("n1",)))
    assert (tmp_path / "new.toml").stat().st_mode & 0o777 == 0o600
