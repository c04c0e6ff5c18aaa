"""The page's own files: small modules that make no markup of text, and name nothing outside."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import covey.ui

STATIC = Path(covey.ui.__file__).parent / "static"
OWN = [path for path in sorted(STATIC.rglob("*")) if path.is_file() and "vendor" not in path.parts]
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function|setHTML|srcdoc"
)
OUTSIDE = re.compile(r"https?://(?!www\.w3\.org/2000/svg)|[\"'(]//")


def test_the_files_are_there():
    assert len([path for path in OWN if path.suffix == ".js"]) > 10
    assert "MIT" in (STATIC / "vendor" / "LICENSE-uPlot").read_text()


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_file_is_small_and_harmless(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert MARKUP.findall(text) == []
    assert OUTSIDE.findall(text) == []
    if path.suffix == ".html":
        assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", text) == []


def test_the_page_has_all_modules_fetched_at_once():
    page = (STATIC / "index.html").read_text()
    modules = {path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*.js")}
    assert set(re.findall(r'(?:modulepreload" href|module" src)="/static/([^"]+)"', page)) == modules


def test_modules_import_what_there_is():
    for path in (path for path in OWN if path.suffix == ".js"):
        for name in re.findall(r'from "(\.[^"]+)"', path.read_text()):
            assert (path.parent / name).resolve().is_file(), f"{path.name} imports {name}"
