"""Covey: federated and decentralized learning between independent processes."""

import os.path

__version__ = "0.1.0"

_LINKED = ("aggregation", "coordinator", "node", "protos", "storage")
"""Packages whose folders lie at the top level of the repository; a clone has links to them here."""
_missing = [name for name in _LINKED if not os.path.isdir(os.path.join(os.path.dirname(__file__), name))]
if _missing:
    raise ImportError(
        f"covey/{_missing[0]} is not a folder: this copy of the repository was made without symbolic links. "
        "Clone it again with `git clone -c core.symlinks=true`, or install the wheel"
    )
