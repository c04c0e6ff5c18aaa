import hashlib
import json
import traceback
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.errors import IdentityError, LimitExceeded
from covey.wire.identities.identity import ENROL_DOMAIN
from covey.wire.identities.signing import (
    DOMAIN,
    MAX_STATEMENT_BYTES,
    CommitStatement,
    CommitVerdict,
    PartStatement,
    ReceiptStatement,
    SigningKey,
    UpdateStatement,
    canonical_json,
    key_id,
    verify,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, categories=["L", "N", "P"]), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
HEX = st.binary(min_size=32, max_size=32).map(bytes.hex)
PARTS = st.builds(
    PartStatement,
    name=NAMES,
    codec=NAMES,
    options=st.dictionaries(NAMES, JSON, max_size=3),
    layout=HEX,
    digest=HEX,
    bytes=st.integers(0, 2**53 - 1),
)
COUNTS = st.integers(0, 2**31 - 1)
UPDATES = st.builds(
    UpdateStatement,
    federation=HEX,
    run=NAMES,
    round=COUNTS,
    node=NAMES,
    key=HEX,
    base=HEX,
    parts=st.lists(PARTS, max_size=3).map(tuple),
    weight=FINITE,
    metrics=st.dictionaries(NAMES, st.tuples(FINITE, FINITE), max_size=3),
)
VERDICTS = st.builds(CommitVerdict, node=NAMES, update=HEX, verdict=NAMES, reason=st.text(max_size=40), share=FINITE)
COMMITS = st.builds(
    CommitStatement,
    federation=HEX,
    run=NAMES,
    round=COUNTS,
    version=COUNTS,
    model_sha256=HEX,
    artifact=HEX,
    parent=HEX,
    state=st.lists(HEX, max_size=2).map(tuple),
    verdicts=st.lists(VERDICTS, max_size=3).map(tuple),
)
RECEIPTS = st.builds(
    ReceiptStatement, federation=HEX, run=NAMES, round=COUNTS, node=NAMES, update=HEX, received_at=FINITE
)
Statement = UpdateStatement | ReceiptStatement | CommitStatement
KINDS: list[type[Statement]] = [UpdateStatement, ReceiptStatement, CommitStatement]
KEY, OTHER = SigningKey.generate(), SigningKey.generate()


@pytest.fixture
def update():
    part = PartStatement("model", "none", {}, "1a" * 32, "2b" * 32, 40)
    return UpdateStatement(
        "fe" * 16, "3f9a01c2d4e5", 3, "alpha", "ab" * 16, "00" * 32, (part,), 10.0, {"loss": (2.5, 10.0)}
    )


def test_a_phase_is_signed_from_the_second_on(update):
    second = replace(update, phase=2).to_bytes()
    assert b"phase" not in update.to_bytes()
    assert b'"phase":2' in second
    assert UpdateStatement.from_bytes(second) == replace(update, phase=2)
    assert UpdateStatement.from_bytes(update.to_bytes()).phase == 1
    for wrong in (b'"phase":0', b'"phase":101'):
        with pytest.raises(IdentityError, match="phase"):
            UpdateStatement.from_bytes(second.replace(b'"phase":2', wrong))
    verdict = CommitVerdict("alpha", "ab", "accepted", "", 1.0)
    assert "phase" not in verdict.fields()
    assert replace(verdict, phase=2).fields()["phase"] == 2


# -- canonical JSON


def test_canonical_json_has_one_form():
    value = {"b": [1, 2.5, None, True], "a": {"é": "\n"}}
    assert canonical_json(value) == b'{"a":{"\\u00e9":"\\n"},"b":[1,2.5,null,true]}'
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


@given(JSON)
def test_canonical_json_is_read_back(value):
    assert json.loads(canonical_json(value)) == value
    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_canonical_json_has_finite_numbers_only(value):
    with pytest.raises(LimitExceeded):
        canonical_json({"a": [value]})


def test_canonical_json_is_not_endlessly_deep():
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(LimitExceeded):
        canonical_json(value)


# -- statements


def test_the_bytes_of_an_update_are_these(update):
    assert update.to_bytes() == (
        b'{"base":"'
        + b"00" * 32
        + b'","covey":"update/1","federation":"'
        + b"fe" * 16
        + b'","key":"'
        + b"ab" * 16
        + b'","metrics":{"loss":[2.5,10.0]},"node":"alpha","parts":[{"bytes":40,'
        b'"codec":"none","digest":"'
        + b"2b" * 32
        + b'","layout":"'
        + b"1a" * 32
        + b'","name":"model","options":{}}],"round":3,"run":"3f9a01c2d4e5","weight":10.0}'
    )


@given(st.one_of(UPDATES, RECEIPTS, COMMITS))
def test_a_statement_is_read_back(statement):
    raw = statement.to_bytes()
    again = type(statement).from_bytes(raw)
    assert again == statement
    assert again.to_bytes() == raw


@given(st.one_of(UPDATES, RECEIPTS, COMMITS))
def test_a_statement_of_one_kind_is_none_of_another(statement):
    for kind in KINDS:
        if kind is not type(statement):
            with pytest.raises(IdentityError, match="not a statement of kind"):
                kind.from_bytes(statement.to_bytes())


@given(st.one_of(JSON.map(canonical_json), st.binary(max_size=100)))
def test_garbage_is_no_statement(raw):
    for kind in KINDS:
        with pytest.raises((IdentityError, LimitExceeded)):
            kind.from_bytes(raw)


@given(st.sampled_from(["update/1", "receipt/1", "commit/1"]), st.data())
def test_wrong_fields_are_refused_and_never_crash(covey, data):
    """Every field of a valid statement in turn is replaced by any JSON."""
    sources = {"update/1": UPDATES, "receipt/1": RECEIPTS, "commit/1": COMMITS}
    statement = data.draw(sources[covey])
    fields = json.loads(statement.to_bytes())
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(JSON)
    raw = canonical_json(fields)
    try:
        read = type(statement).from_bytes(raw)
    except (IdentityError, LimitExceeded):
        return
    assert type(statement).from_bytes(read.to_bytes()) == read


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("round", -1),
        ("round", 2**31),
        ("round", 1.0),
        ("round", True),
        ("round", "1"),
        ("round", None),
        ("weight", "1"),
        ("weight", True),
        ("weight", 10**400),
        ("weight", None),
        ("weight", []),
        ("node", "a\n"),
        ("run", "\ud800"),
        ("run", "a\0"),
        ("run", "a" * 201),
        ("run", 5),
        ("key", None),
        ("parts", {}),
        ("parts", [5]),
        ("parts", [{}] * 17),
        ("parts", [{"name": "model"}]),
        ("metrics", []),
        ("metrics", {"a": 1}),
        ("metrics", {"a": [1]}),
        ("metrics", {"a": [1, "2"]}),
        ("metrics", {"a\n": [1, 2]}),
        ("metrics", {str(i): [1, 2] for i in range(201)}),
        ("metrics", {"a": [1, 2, 3]}),
        ("extra", 1),
        ("extra\n" * 1000, {}),
        ("options", {}),
    ],
)
def test_hostile_values_are_refused(update, field, value):
    fields = json.loads(update.to_bytes())
    assert UpdateStatement.from_bytes(canonical_json(fields)) == update
    with pytest.raises(IdentityError):
        UpdateStatement.from_bytes(canonical_json({**fields, field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bytes", -1),
        ("bytes", 2**53),
        ("bytes", 4.0),
        ("options", None),
        ("options", []),
        ("options", {"x": "\ud800"}),
        ("options", {"x": json.loads("[" * 300 + "]" * 300)}),
        ("digest", "\x7f"),
        ("extra", 1),
    ],
)
def test_hostile_values_of_a_part_are_refused(update, field, value):
    fields = json.loads(update.to_bytes())
    fields["parts"][0][field] = value
    with pytest.raises(IdentityError, match="statement"):
        UpdateStatement.from_bytes(canonical_json(fields))


@pytest.mark.parametrize(("field", "value"), [("round", -1), ("round", 2**40), ("reason", "a" * 10_001), ("extra", 1)])
def test_hostile_values_of_a_verdict_are_refused(field, value):
    verdict = CommitVerdict("alpha", "ab" * 32, "accepted", "", 0.5)
    commit = CommitStatement("fe" * 16, "run", 3, 4, "m", "a", "p", (verdict, replace(verdict, round=2)), ("s",))
    fields = json.loads(commit.to_bytes())
    assert CommitStatement.from_bytes(canonical_json(fields)) == commit
    fields["verdicts"][0][field] = value
    with pytest.raises(IdentityError, match=r"verdicts\.0"):
        CommitStatement.from_bytes(canonical_json(fields))


def test_a_refusal_is_short_printable_and_without_the_values(update):
    fields = json.loads(update.to_bytes())
    for change in ({"k\n" * 10_000: 1}, {"key": ["secret"]}, {f"k{index}": "secret" for index in range(50_000)}):
        with pytest.raises(IdentityError) as caught:
            UpdateStatement.from_bytes(canonical_json({**fields, **change}))
        text = str(caught.value)
        assert text.startswith("statement: ")
        assert len(text) < 1000
        assert text.isprintable()
        assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.replace(b'"weight":10.0', b'"weight":1e999'),
        lambda raw: raw.replace(b'"weight":10.0', b'"weight":NaN'),
        lambda raw: raw.replace(b'"weight":10.0', b'"weight":1e1'),
        lambda raw: raw.replace(b'"weight":10.0', b'"weight":' + b"9" * 5000),
        lambda raw: raw.replace(b'{"base"', b'{"weight":1.0,"base"'),
        lambda raw: raw.replace(b'"options":{}', b'"options":{"x":Infinity}'),
        lambda raw: raw.replace(b'"options":{}', b'"options":{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
        lambda raw: b" " + raw,
        lambda raw: raw + b"\n",
        lambda raw: raw.decode().encode("utf-16"),
        lambda raw: b"\xef\xbb\xbf" + raw,
        lambda raw: raw[:-1],
    ],
    ids=[
        "overflows",
        "not-a-number",
        "another-float",
        "long-integer",
        "key-twice",
        "infinite-option",
        "deep-option",
        "space-before",
        "newline-after",
        "utf-16",
        "byte-order-mark",
        "cut-off",
    ],
)
def test_only_canonical_bytes_are_read(update, change):
    raw = update.to_bytes()
    assert change(raw) != raw
    with pytest.raises(IdentityError):
        UpdateStatement.from_bytes(change(raw))


def test_a_statement_has_a_bounded_length(update):
    raw = replace(update, parts=(replace(update.parts[0], options={"x": "a" * MAX_STATEMENT_BYTES}),)).to_bytes()
    with pytest.raises(LimitExceeded, match="at most"):
        UpdateStatement.from_bytes(raw)


def test_a_diverged_training_cannot_be_signed_and_is_named(update):
    with pytest.raises(LimitExceeded, match="loss is not a finite number"):
        replace(update, metrics={"loss": (float("nan"), 1.0)}).to_bytes()
    with pytest.raises(LimitExceeded, match="the weight is not a finite number"):
        replace(update, weight=float("inf")).to_bytes()


# -- signatures


def test_a_signature_is_checked(update):
    raw = update.to_bytes()
    signature = KEY.sign(raw)
    verify(KEY.public_bytes, raw, signature)
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    for key, statement, proof in [
        (OTHER.public_bytes, raw, signature),
        (KEY.public_bytes, raw + b" ", signature),
        (KEY.public_bytes, raw, flipped),
        (KEY.public_bytes, raw, b""),
        (KEY.public_bytes[:-1], raw, signature),
        (b"", raw, signature),
    ]:
        with pytest.raises(IdentityError, match="signature"):
            verify(key, statement, proof)


@given(st.binary(max_size=40), st.binary(max_size=70), st.binary(max_size=40))
def test_garbage_is_no_signature(key, signature, statement):
    with pytest.raises(IdentityError):
        verify(key, statement, signature)


def test_a_signature_for_one_purpose_is_none_for_another(update):
    raw = update.to_bytes()
    with pytest.raises(IdentityError):
        verify(KEY.public_bytes, raw, KEY.sign(raw, ENROL_DOMAIN))
    with pytest.raises(IdentityError):
        verify(KEY.public_bytes, raw, KEY.sign(raw), ENROL_DOMAIN)
    with pytest.raises(IdentityError):
        verify(KEY.public_bytes, raw, KEY.sign(raw, b""))


def test_no_domain_is_the_beginning_of_another():
    for one, other in ((DOMAIN, ENROL_DOMAIN), (ENROL_DOMAIN, DOMAIN)):
        assert not one.startswith(other)


def test_a_key_is_named_by_its_digest():
    assert KEY.key_id == key_id(KEY.public_bytes) == hashlib.sha256(KEY.public_bytes).hexdigest()[:32]
    assert KEY.key_id != OTHER.key_id
