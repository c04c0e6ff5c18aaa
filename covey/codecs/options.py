"""Where plug-ins written for earlier versions find what is in `covey.options` now."""

from covey.options import PluginOptions, validated

__all__ = ["PluginOptions", "validated"]
