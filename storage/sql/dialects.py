"""What the two back ends write differently."""

from __future__ import annotations

from typing import Any

from sqlalchemy import String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class ByCodePoint(FunctionElement[str]):
    """Names in the order of their code points, as Python sorts them, whatever the database's locale is."""

    inherit_cache = True
    type = String()


@compiles(ByCodePoint, "sqlite")
def _as_stored(element: ByCodePoint, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(ByCodePoint, "postgresql")
def _in_locale_c(element: ByCodePoint, compiler: Any, **options: Any) -> str:
    return f'{compiler.process(element.clauses, **options)} COLLATE "C"'


class TextsOfJson(FunctionElement[str]):
    """The rows (column `value`) of a JSON array of texts."""

    inherit_cache = True
    type = String()


@compiles(TextsOfJson, "sqlite")
def _each(element: TextsOfJson, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(TextsOfJson, "postgresql")
def _elements(element: TextsOfJson, compiler: Any, **options: Any) -> str:
    return f"json_array_elements_text(CAST({compiler.process(element.clauses, **options)} AS JSON))"
