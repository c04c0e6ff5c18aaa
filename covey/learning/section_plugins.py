"""Plug-ins that are named by one key of a section of the specification: [training] optimizer, [data] partition.

Covey's own have their options among the section's other keys, where they have always been; all others have them in the
section's `options`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, TypeVar

from covey.errors import SpecError
from covey.plugins import Kind, Pluggable
from covey.spec.sections import Options


class NamingSection(Protocol):
    """A section that names such a plug-in."""

    @property
    def options(self) -> Options:
        """The plug-in's options that are not keys of the section itself."""


class SectionPlugin(Pluggable):
    """Base of their contracts.

    Class attributes:
        section_keys: Options that are keys of the section itself; Covey's own plug-ins only.
    """

    section_keys: ClassVar[tuple[str, ...]] = ()


def options_in(cls: type[SectionPlugin], section: NamingSection, at: str) -> dict[str, Any]:
    """A plug-in's options, from both places.

    Args:
        cls: The plug-in.
        section: The section that names it.
        at: Where the section stands: `training`.

    Raises:
        SpecError: An option that is a key of the section is in `options`, too.
    """
    twice = sorted(set(cls.section_keys) & set(section.options))
    if twice:
        raise SpecError("; ".join(f"{at}.options.{key}: write it as {at}.{key}" for key in twice))
    return {key: getattr(section, key) for key in cls.section_keys} | section.options


P = TypeVar("P", bound=SectionPlugin)


def make_in(kind: Kind[P], name: str, section: NamingSection, at: str) -> P:
    """The plug-in that a section names.

    Args:
        kind: Its kind.
        name: Its name.
        section: Where its options are.
        at: Where the section stands.

    Raises:
        PluginError: Not installed here.
        SpecError: An option is unknown or has a wrong value.
    """
    return kind.make(name, options_in(kind.load(name, at), section, at), at)
