"""Conformance of a store: tokens, identities and their keys."""

# ruff: noqa: D102 (a test's name says what it checks)

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from covey.errors import Conflict, NotFound
from covey.storage.record.contract import RedemptionRecord, Store
from covey.testing.store import records as make


class IdentityConformance:
    """From a join token to an evicted node."""

    def test_a_token_comes_back(self, store: Store) -> None:
        token = make.token_record()
        store.add_token(token)
        assert store.token(token.secret_sha256) == token
        with pytest.raises(Conflict):
            store.add_token(token)
        with pytest.raises(NotFound):
            store.token("none")

    def test_redeeming_binds_the_token_and_enrols(self, store: Store) -> None:
        token = make.token_record()
        store.add_token(token)
        node = make.node_record(tasks=("digits", "tasks:Mine"), version="0.1", device="cpu")
        assert store.redemption(token.secret_sha256, "csr-1") is None
        redeemed = store.redeem_token(token.secret_sha256, "csr-1", b"PEM 1", node)
        assert redeemed == RedemptionRecord(token.secret_sha256, "csr-1", "ada", b"PEM 1")
        assert store.redemption(token.secret_sha256, "csr-1") == redeemed
        assert store.redemption(token.secret_sha256, "csr-2") is None
        assert store.token(token.secret_sha256) == replace(token, used=1)
        assert store.node("ada") == node
        assert store.signing_key(node.key_id) == node.signing_key

    def test_the_same_key_again_gets_the_same_and_another_one_nothing(self, store: Store) -> None:
        redeemed = make.enrol(store, make.node_record())
        csr = redeemed.csr_key_sha256
        other = make.node_record(key="second")
        assert store.redeem_token(redeemed.secret_sha256, csr, b"PEM 2", other) == redeemed
        with pytest.raises(Conflict):
            store.redeem_token(redeemed.secret_sha256, "csr-2", b"PEM 2", other)
        with pytest.raises(NotFound):
            store.redeem_token("none", csr, b"PEM", other)
        assert store.node("ada") == make.node_record()
        with pytest.raises(NotFound):
            store.signing_key(other.key_id)

    def test_a_token_is_for_the_name_that_it_says(self, store: Store) -> None:
        named, free = make.token_record("ada"), make.token_record("")
        for token in (named, free):
            store.add_token(token)
        with pytest.raises(Conflict, match="ada"):
            store.redeem_token(named.secret_sha256, "csr", b"PEM", make.node_record("bob"))
        assert store.token(named.secret_sha256) == named
        store.redeem_token(free.secret_sha256, "csr", b"PEM", make.node_record("bob"))
        assert [node.node for node in store.nodes()] == ["bob"]

    def test_a_token_of_several_uses_enrols_so_many_and_no_more(self, store: Store) -> None:
        token = make.token_record("site", uses=3)
        store.add_token(token)
        names = [self._use(store, token.secret_sha256, f"csr-{number}") for number in range(3)]
        assert names == ["site-1", "site-2", "site-3"]
        assert store.token(token.secret_sha256) == replace(token, used=3)
        assert store.tokens() == [replace(token, used=3)]
        assert self._use(store, token.secret_sha256, "csr-1") == "site-2"
        with pytest.raises(Conflict, match="used"):
            self._use(store, token.secret_sha256, "csr-3")
        with pytest.raises(NotFound):
            store.revoke_tokens("site")
        assert [node.node for node in store.nodes()] == names

    def test_uses_are_counted_one_after_the_other(self, store: Store) -> None:
        token = make.token_record("site", uses=3)
        store.add_token(token)

        def use(number: int) -> str:
            node = make.node_record(f"site-{number}")
            try:
                return store.redeem_token(token.secret_sha256, f"csr-{number}", b"PEM", node).node
            except Conflict:
                return ""

        with ThreadPoolExecutor(8) as pool:
            names = [name for name in pool.map(use, range(1, 25)) if name]
        assert len(names) == 3
        assert sorted(node.node for node in store.nodes()) == sorted(names)
        assert store.token(token.secret_sha256).uses_left == 0

    def test_a_token_of_several_uses_is_for_its_numbered_names(self, store: Store) -> None:
        token = make.token_record("site", uses=2)
        store.add_token(token)
        for name in ("site", "site-", "site-a", "other-1", "site-1-1"):
            with pytest.raises(Conflict, match="is for 'site'"):
                store.redeem_token(token.secret_sha256, "csr", b"PEM", make.node_record(name))
        assert store.token(token.secret_sha256).used == 0
        self._use(store, token.secret_sha256, "csr")
        (revoked,) = store.revoke_tokens("site")
        assert revoked == replace(token, used=1, expires_at=0.0)

    def test_a_number_is_given_once(self, store: Store) -> None:
        assert store.next_name("site") == "site-1"
        make.enrol(store, make.node_record("site-2"))
        make.enrol(store, make.node_record("site-1"))
        make.enrol(store, make.node_record("site-2-7"))
        make.enrol(store, make.node_record("sites-9"))
        assert store.next_name("site") == "site-3"
        store.set_node_state("site-2", "evicted")
        assert store.next_name("site") == "site-3"
        store.add_token(make.token_record("site-11"))
        assert store.next_name("site") == "site-12"
        assert store.next_name("site-2") == "site-2-8"

    @staticmethod
    def _use(store: Store, secret_sha256: str, keys: str) -> str:
        node = make.node_record(store.next_name("site"))
        return store.redeem_token(secret_sha256, keys, b"PEM", node).node

    def test_a_name_belongs_to_its_active_identity(self, store: Store) -> None:
        make.enrol(store, make.node_record())
        with pytest.raises(Conflict, match="ada"):
            make.enrol(store, make.node_record(key="second"), "second")
        assert store.node("ada").key_id == make.node_record().key_id

    @pytest.mark.parametrize("state", ["evicted", "left"])
    def test_who_is_gone_can_be_enrolled_again(self, store: Store, state: str) -> None:
        first, second = make.node_record(), make.node_record(key="second", enrolled_at=50.0)
        redeemed = make.enrol(store, first)
        store.set_node_state("ada", state)  # type: ignore[arg-type]
        assert store.node("ada").state == state
        store.redeem_token(redeemed.secret_sha256, redeemed.csr_key_sha256, b"", first)
        assert store.node("ada").state == state
        make.enrol(store, second, "second")
        assert store.node("ada") == second
        assert store.signing_key(first.key_id) == first.signing_key

    def test_a_signing_key_belongs_to_one_identity(self, store: Store) -> None:
        ada = make.node_record("ada")
        make.enrol(store, ada)
        thief = make.node_record("bob", key_id=ada.key_id, signing_key=ada.signing_key)
        with pytest.raises(Conflict, match="another identity"):
            make.enrol(store, thief)
        with pytest.raises(NotFound):
            store.node("bob")
        assert store.token(make.token_record("bob").secret_sha256).used == 0

    def test_renewal_changes_the_key_and_remembers_the_old_one(self, store: Store) -> None:
        first, second = make.node_record(), make.node_record(key="second")
        make.enrol(store, first)
        renewal = ("serial 2", 2e9, second.signing_key, second.key_id, 100.0)
        store.renew_node("ada", *renewal)
        store.renew_node("ada", *renewal)
        ada = store.node("ada")
        assert (ada.certificate_serial, ada.certificate_expires_at) == ("serial 2", 2e9)
        assert (ada.signing_key, ada.key_id) == (second.signing_key, second.key_id)
        for node in (first, second):
            assert store.signing_key(node.key_id) == node.signing_key
        assert ada.previous_serial == ""
        store.renew_node("ada", "serial 3", 3e9, first.signing_key, first.key_id, 200.0, previous_serial="serial 2")
        assert (store.node("ada").key_id, store.node("ada").previous_serial) == (first.key_id, "serial 2")
        assert next(node for node in store.nodes() if node.node == "ada").previous_serial == "serial 2"
        store.settle_node("ada")
        assert (store.node("ada").certificate_serial, store.node("ada").previous_serial) == ("serial 3", "")
        with pytest.raises(NotFound):
            store.settle_node("bob")
        with pytest.raises(NotFound):
            store.renew_node("bob", *renewal)

    def test_roles_are_listed_apart_by_name(self, store: Store) -> None:
        for name in ("b", "a-2", "B", "a10"):
            make.enrol(store, make.node_record(name))
        make.enrol(store, make.node_record("root", role="admin", key_id="", signing_key=b""))
        make.enrol(store, make.node_record("chief", role="admin", key_id="", signing_key=b""))
        store.set_node_state("b", "evicted")
        assert [node.node for node in store.nodes()] == sorted(["b", "a-2", "B", "a10"])
        assert [node.node for node in store.nodes(role="admin")] == ["chief", "root"]
        assert store.nodes(role="auditor") == []
        assert store.node("root").signing_key == b""

    def test_verdicts_are_counted_over_all_runs(self, store: Store) -> None:
        for node in ("ada", "bob", "cyd"):
            make.enrol(store, make.node_record(node))
        for run in ("run-1", "run-2"):
            make.start_run(store, run)
            make.play_round(store, run, 1, ("ada", "bob"))
        store.open_round(make.round_record("run-1", 2))
        store.record_update(make.update_record("run-1", 2, "ada"))
        store.record_outcome(make.outcome_record("run-1", 2, "bob", "rejected"))
        counts = {node.node: (node.accepted, node.rejected) for node in store.nodes()}
        assert counts == {"ada": (2, 0), "bob": (2, 1), "cyd": (0, 0)}
        assert all(store.node(node.node) == node for node in store.nodes())

    def test_what_a_node_said_of_itself_stays_until_it_says_otherwise(self, store: Store) -> None:
        make.enrol(store, make.node_record())
        store.seen("ada", 20.0, version="0.1\0", device="cuda", tasks=["digits"])
        store.seen("ada", 30.5)
        ada = store.node("ada")
        assert (ada.last_seen_at, ada.device, ada.tasks) == (30.5, "cuda", ("digits",))
        assert ada.version.startswith("0.1")
        store.note_seen({"ada": 30.75, "nobody": 1.0})
        store.note_seen({})
        assert store.node("ada").last_seen_at == 30.75
        store.seen("ada", 31.0, tasks=[])
        assert store.node("ada").tasks == ()
        with pytest.raises(NotFound):
            store.seen("bob", 1.0)
        with pytest.raises(NotFound):
            store.set_node_state("bob", "left")
        with pytest.raises(NotFound):
            store.node("bob")

    def test_tokens_are_listed_and_an_unused_one_is_revoked(self, store: Store) -> None:
        tokens = [make.token_record(name, created_at=float(at)) for at, name in enumerate(("ada", "bob", "cyd"))]
        for token in tokens:
            store.add_token(token)
        assert store.tokens() == tokens[::-1]
        assert store.tokens(skip=1, limit=1) == [tokens[1]]
        used = make.node_record("ada")
        store.redeem_token(tokens[0].secret_sha256, "k" * 64, b"certificate", used)
        with pytest.raises(NotFound):
            store.revoke_tokens("ada")
        assert store.revoke_tokens(tokens[1].secret_sha256[:12]) == [replace(tokens[1], expires_at=0.0)]
        assert store.token(tokens[1].secret_sha256).expires_at == 0
        assert [token.name for token in store.revoke_tokens("cyd")] == ["cyd"]
        assert [(token.name, token.uses_left) for token in store.tokens()] == [("cyd", 1), ("bob", 1), ("ada", 0)]
        for gone in ("cyd", "nobody", tokens[1].secret_sha256):
            with pytest.raises(NotFound):
                store.revoke_tokens(gone)
