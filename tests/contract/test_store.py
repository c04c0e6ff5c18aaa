from __future__ import annotations

import pytest

from covey.storage.sql.store import open_store
from covey.testing.store.conformance import StoreConformance


class TestSQLite(StoreConformance):
    @pytest.fixture
    def opened(self, tmp_path):
        return lambda: open_store(f"sqlite:///{tmp_path}/covey.db")


class TestPostgreSQL(StoreConformance):
    @pytest.fixture
    def opened(self, postgres_database):
        return lambda: open_store(postgres_database)
