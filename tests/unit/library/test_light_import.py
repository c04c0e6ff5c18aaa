"""Whoever works with a federation of daemons does not wait for the modules of a simulation, or of tensors."""

from __future__ import annotations

import subprocess
import sys


def test_a_federation_of_daemons_needs_no_simulation() -> None:
    program = (
        "import sys, covey; covey.connect; covey.local; covey.FederatedRun\n"
        "heavy = ('covey.simulation', 'covey.coordinator', 'sqlalchemy', 'torch', 'numpy')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
