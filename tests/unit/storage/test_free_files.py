import pytest

from covey.storage.files.recycled import FreeFiles


def put(pool, folder, size):
    path = folder / "dropped"
    path.write_bytes(bytes(size))
    pool.put(path, size)
    assert not path.exists()


@pytest.fixture
def pool(tmp_path):
    return FreeFiles(tmp_path / "free", max_same_size=2, max_files=3)


def test_only_files_of_exactly_the_size_are_given(pool, tmp_path):
    put(pool, tmp_path, 10)
    assert not pool.take(9, tmp_path / "taken")
    assert not pool.take(11, tmp_path / "taken")
    assert pool.take(10, tmp_path / "taken")
    assert (tmp_path / "taken").stat().st_size == 10
    assert not pool.take(10, tmp_path / "other")
    assert pool.bytes_used == 0


def test_the_pool_is_bounded_by_size_and_in_all(pool, tmp_path):
    for size in (10, 10, 10, 20, 30, 0):
        put(pool, tmp_path, size)
    assert pool.bytes_used == 10 + 20 + 30
    assert sorted(path.stat().st_size for path in (tmp_path / "free").iterdir()) == [10, 20, 30]


def test_the_longest_unused_go_first(pool, tmp_path):
    for size in (10, 20, 30):
        put(pool, tmp_path, size)
    pool.shrink(50)
    assert pool.bytes_used == 50
    assert not pool.take(10, tmp_path / "taken")
    pool.shrink(0)
    assert list((tmp_path / "free").iterdir()) == []


def test_files_from_before_are_used(pool, tmp_path):
    for _ in range(2):
        put(pool, tmp_path, 10)
    put(pool, tmp_path, 7)
    again = FreeFiles(tmp_path / "free", max_same_size=2, max_files=3)
    assert again.bytes_used == 27
    assert again.take(10, tmp_path / "one")
    put(again, tmp_path, 10)
    assert again.take(10, tmp_path / "two")
    assert again.take(10, tmp_path / "three")
    assert again.bytes_used == 7
