"""Which version is the best one by a metric."""

import pytest

from covey.artifact import artifact_of
from covey.errors import NotFound
from covey.storage.record.records import VersionRecord
from covey.storage.record.versions import best_version, numbers_in_words


def version(number, metrics=None, kept=True):
    name, artifact = f"{number:02x}" * 32, artifact_of([b"x" * number])
    return VersionRecord("3f9a", number, name, artifact, 20.0, metrics=metrics or {}, kept=kept)


def test_the_best_version_is_the_newest_of_equals_and_kept():
    found = [version(1, {"a": 0.9}), version(2, {"a": 0.9}), version(3, {"a": 0.99}, kept=False), version(4)]
    assert best_version(found, "a", "max").version == 2
    assert best_version([version(1, {"a": 3.0}), version(2, {"a": 1.0})], "a", "min").version == 2


def test_the_best_version_by_the_nodes_metric_where_there_is_no_other():
    found = [version(1, {"nodes/accuracy": 0.9}), version(2, {"nodes/accuracy": 0.1})]
    assert best_version(found, "accuracy", "max").version == 1
    found.append(version(3, {"accuracy": 0.05}))
    assert best_version(found, "accuracy", "max").version == 3


def test_values_that_are_no_numbers_are_never_the_best():
    found = [version(1, {"a": float("nan")}), version(2, {"a": 0.1}), version(3, {"a": float("inf")})]
    assert best_version(found, "a", "max").version == 2


def test_without_such_a_metric_it_says_which_there_are():
    with pytest.raises(NotFound, match=r"'f1'.*known metrics: accuracy, loss"):
        best_version([version(1, {"loss": 1.0, "accuracy": 0.5})], "f1", "max")


def test_versions_are_said_in_a_few_words():
    assert (numbers_in_words([]), numbers_in_words([3])) == ("", "3")
    assert numbers_in_words([0, 4, 5, 6, 9]) == "0, 4 to 6, 9"
    assert numbers_in_words(range(0, 40, 2)) == "..., 24, 26, 28, 30, 32, 34, 36, 38"
