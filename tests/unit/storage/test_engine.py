from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.errors import StoreError
from covey.storage.sql.engine import database_url, dump_json, load_json, sqlite_path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=50, deadline=None)
def test_every_value_survives_as_strict_json(value):
    text = dump_json(value)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert load_json(text) == load_json(text.encode()) == value


def test_not_a_number_survives_beside_what_looks_like_it():
    alike = ["nan", {"$float": "x", "d": 1}, {"$float": "x"}, {"$float": 1}, {"$float": [1]}, {"$float": None}]
    number, *others = load_json(dump_json([math.nan, *alike]))
    assert math.isnan(number)
    assert others == alike


@pytest.mark.parametrize("url", ["postgres://a:b@h/d", "postgresql://a:b@h/d", "postgresql+psycopg2://a:b@h/d"])
def test_postgresql_is_always_reached_by_psycopg(url):
    found = database_url(url)
    assert found.render_as_string(hide_password=False) == "postgresql+psycopg://a:b@h/d"
    assert sqlite_path(found) is None


def test_sqlite_needs_a_file():
    assert str(sqlite_path(database_url("sqlite:////srv/covey.db"))) == "/srv/covey.db"
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(StoreError, match="name a file"):
            database_url(url)


@pytest.mark.parametrize("url", ["mysql://a/b", "/srv/covey.db", "", "oracle"])
def test_other_urls_are_refused_with_the_choices(url):
    with pytest.raises(StoreError, match="sqlite:///PATH or postgresql://"):
        database_url(url)
