"""`python -m covey.testing.catalogue FILE`: write the page."""

from __future__ import annotations

import sys
from pathlib import Path

from covey.testing.catalogue.page import page

Path(sys.argv[1]).write_text(page(), encoding="utf-8")
