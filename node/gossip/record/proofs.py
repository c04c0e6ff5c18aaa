"""What proves that a node gave a batch that cannot be, on disk for everybody of a run: only its own signatures do.

A node that refuses such a batch says so to all, and they say it on: each checks it by itself. One proof is kept for
each incarnation.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from covey.errors import CoveyError, IdentityError
from covey.gossip.ledger import Incarnation
from covey.gossip.receipts import Excess, Proof, Receipt, SignedMass, excess_of
from covey.storage.files.spool import disk_errors
from covey.wire.identities.authority import write_private

log = structlog.get_logger(room="gossip")
FOLDER = "proofs"
"""In the run's folder."""
_PARTS = ("statement", "signature", "certificate")
Open = Callable[[SignedMass], Receipt]
"""What a sender signed, checked. Raises IdentityError, LimitExceeded."""


class Proofs:
    """The proofs of one run that this node knows.

    Args:
        folder: Where they are kept.
        open_given: Checks what a sender signed.
        is_known: Whether an incarnation takes part in the run, or did: of others nothing is kept.
        most: The most units that one batch may have now.
    """

    def __init__(
        self, folder: Path, open_given: Open, is_known: Callable[[Incarnation], bool], most: Callable[[], int]
    ) -> None:
        self._folder, self._open, self._is_known, self._most = folder, open_given, is_known, most
        self._proofs: dict[Incarnation, Proof] = {}
        self._taking = threading.Lock()

    def load(self) -> None:
        """Read what is on disk. A file that cannot be one of them is passed over, and said."""
        for proof in read_proofs(self._folder):
            try:
                self._proofs.setdefault(self._judged(proof).who, proof)
            except CoveyError as error:
                log.warning("a proof that does not count", folder=str(self._folder), reason=str(error))

    def take(self, proof: Proof) -> Excess | None:
        """A proof from anybody; None: one against this incarnation is known. Blocking: it is on disk at the end.

        Raises:
            IdentityError: It does not count; the text says why.
            LimitExceeded: It is too long.
            StoreError: The disk refuses.
        """
        with self._taking:  # it comes from several peers at once
            excess = self._judged(proof)
            if excess.who in self._proofs:
                return None
            path = self._folder / f"{excess.who.node}-{excess.who.number}.json"
            with disk_errors(path):
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_private(path, json.dumps(proof_to_json(proof)).encode())
            self._proofs[excess.who] = proof
        return excess

    def _judged(self, proof: Proof) -> Excess:
        excess = judged(proof, self._open, self._most())
        if not self._is_known(excess.who):
            raise IdentityError(f"{excess.who} takes no part in this run")
        return excess

    def all(self) -> list[Proof]:
        """All of them."""
        return list(self._proofs.values())


def judged(proof: Proof, open_given: Open, most: int) -> Excess:
    """What a proof from anybody proves.

    Args:
        proof: It.
        open_given: Checks what a sender signed.
        most: The most units that one batch may have.

    Raises:
        IdentityError: Nothing; the text says why.
        LimitExceeded: It is too long.
    """
    before = open_given(proof.before) if proof.before is not None else None
    excess = excess_of(before, open_given(proof.refused), most)
    if excess is None:
        raise IdentityError("what was signed can be: it does not prove anything")
    return excess


def read_proofs(folder: Path) -> list[Proof]:
    """Those in a folder; what is none is passed over, and said."""
    proofs = []
    for path in sorted(folder.glob("*.json")):
        try:
            proofs.append(proof_from_json(json.loads(path.read_bytes())))
        except (OSError, ValueError, IdentityError) as error:
            log.warning("a file that is no proof", file=str(path), reason=str(error))
    return proofs


def proof_to_json(proof: Proof) -> dict[str, Any]:
    """As JSON; bytes in base64."""
    return {name: None if each is None else signed_to_json(each) for name, each in vars(proof).items()}


def proof_from_json(values: Mapping[str, Any]) -> Proof:
    """What `proof_to_json` made; nothing of it is checked yet. Raises IdentityError where it is something else."""
    try:
        before = values["before"]
        return Proof(None if before is None else signed_from_json(before), signed_from_json(values["refused"]))
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise IdentityError(f"this is no proof: {error!r}") from error


def signed_to_json(signed: SignedMass) -> dict[str, str]:
    """As JSON; bytes in base64."""
    return {name: base64.b64encode(getattr(signed, name)).decode() for name in _PARTS}


def signed_from_json(values: Mapping[str, str]) -> SignedMass:
    """What `signed_to_json` made. Raises KeyError, TypeError, binascii.Error where it is something else."""
    return SignedMass(*(base64.b64decode(values[name], validate=True) for name in _PARTS))
