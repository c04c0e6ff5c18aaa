"""Join tokens of a record from before they had several uses: what was used stays used, and the way back works."""

from __future__ import annotations

from contextlib import closing

import pytest
from sqlalchemy import select

from covey.errors import Conflict
from covey.storage.record.contract import RedemptionRecord
from covey.storage.sql.store import open_store
from covey.testing.store import records as make
from tests.unit.storage.schema_0002 import TABLES, connected, go_to, table, write


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """A database as version 0002 left it: ada, bob and cyd have used their tokens, dan has not."""
    made = f"sqlite:///{tmp_path}/old.db" if request.param == "sqlite" else request.getfixturevalue("empty_postgres")
    write(made)
    return made


def token_of(name):
    return next(row for row in TABLES["tokens"] if row["name"] == name)


def test_a_used_token_stays_used_and_its_keys_get_their_certificate_again(url):
    ada, dan = token_of("ada"), token_of("dan")
    with closing(open_store(url)) as store:
        store.acquire_lease("test")
        assert {one.name: one.uses_left for one in store.tokens()} == {"ada": 0, "bob": 0, "cyd": 0, "dan": 1}
        found = store.redemption(ada["secret_sha256"], ada["csr_key_sha256"])
        assert found == RedemptionRecord(ada["secret_sha256"], ada["csr_key_sha256"], "ada", b"PEM")
        with pytest.raises(Conflict, match="used with other keys"):
            store.redeem_token(ada["secret_sha256"], "other keys", b"", make.node_record("ada", key="other"))
        store.redeem_token(dan["secret_sha256"], "keys of dan", b"PEM of dan", make.node_record("dan"))
        assert store.token(dan["secret_sha256"]).uses_left == 0


def test_the_way_back_gives_the_columns_that_there_were(url):
    def tokens(connection):
        found = connection.execute(select(table(connection, "tokens"))).mappings()
        return {row["name"]: {**row, "certificate": bytes(row["certificate"])} for row in found}

    with connected(url) as connection:
        before = tokens(connection)
        go_to(connection, "0007")
        go_to(connection, "0006")
        assert tokens(connection) == before
