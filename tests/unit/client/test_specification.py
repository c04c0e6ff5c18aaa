"""Specifications as callers have them."""

from __future__ import annotations

import pytest

from covey.client.specification import parsed, request_of
from covey.errors import NotFound, SpecError

TEXT = 'name = "digits"\n[task]\nname = "digits"\n[rounds]\ncount = 3\n'
MAPPING = {"name": "digits", "task": {"name": "digits"}, "rounds": {"count": 3}}


def test_a_file_its_path_its_text_and_a_mapping_are_the_same(tmp_path):
    path = tmp_path / "digits.toml"
    path.write_text(TEXT)
    forms = [path, str(path), TEXT, MAPPING]
    assert len({parsed(form).to_json() for form in forms}) == 1
    assert [request_of(form).spec_toml for form in forms] == [TEXT, TEXT, TEXT, ""]
    assert parsed(request_of(MAPPING).spec_json and MAPPING).rounds.count == 3


def test_what_is_wrong_is_said_before_it_is_sent(tmp_path):
    with pytest.raises(SpecError, match=r"rounds\.counts"):
        request_of({**MAPPING, "rounds": {"counts": 3}})
    with pytest.raises(SpecError, match="what TOML does not know"):
        request_of({**MAPPING, "seed": {1, 2}})
    with pytest.raises(NotFound, match="cannot be read"):
        request_of(tmp_path / "no.toml")
    (tmp_path / "spec.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="is not a text file"):
        request_of(tmp_path / "spec.toml")
