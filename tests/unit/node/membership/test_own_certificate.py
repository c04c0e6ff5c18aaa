"""A certificate that is issued again counts in a running node; what cannot be used is passed over in words."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from covey.client.authority import init, issue
from covey.node.membership.own_certificate import DAY_S, OwnCertificate
from covey.wire.identities.identity import Identity, tls_key_in


class Setting:
    """An authority, and a node's folder that it certified for some days."""

    def __init__(self, path: Path, days: int = 90) -> None:
        self.ca, self.folder, self.now = path / "ca", path / "identity", time.time()
        init(self.ca)
        issue(self.ca, "n0", self.folder, days=days)
        self.taken: list[Identity] = []
        identity = Identity.load(self.folder)
        self.certificate = OwnCertificate(self.folder, identity, self.taken.append, lambda: self.now)

    def look(self) -> list[tuple[str, Any]]:
        """What is said of one look: level and event, with the reason."""
        with capture_logs() as said:
            self.certificate.look()
        return [(line["log_level"], " ".join(map(str, line.values()))) for line in said]


def test_one_that_is_issued_again_takes_its_place(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    before = setting.certificate.newest
    assert setting.look() == []
    assert setting.certificate.newest is before
    issued = issue(setting.ca, "n0", setting.folder, days=300)
    [(level, text)] = setting.look()
    assert (level, "going on with a new certificate" in text) == ("info", True)
    assert setting.taken == [setting.certificate.newest]
    assert setting.certificate.newest.expires_at == issued.expires_at > before.expires_at
    assert setting.certificate.newest.key_pem == before.key_pem
    assert setting.look() == []


@pytest.mark.parametrize("what", ["other keys", "another name", "another authority", "half of it"])
def test_what_cannot_be_used_is_passed_over_once_and_with_a_reason(tmp_path: Path, what: str) -> None:
    setting = Setting(tmp_path)
    before = setting.certificate.newest
    if what == "other keys":
        for name in ("tls.key", "federation.json"):
            (setting.folder / name).unlink()
        issue(setting.ca, "n0", setting.folder)
    elif what == "another name":
        issue(setting.ca, "n1", tmp_path / "n1")
        for path in (tmp_path / "n1").iterdir():
            path.replace(setting.folder / path.name)
    elif what == "another authority":
        other = Setting(tmp_path / "theirs")
        pem = (other.folder / "tls.crt").read_bytes()
        (setting.folder / "tls.crt").write_bytes(pem)
    else:
        path = setting.folder / "tls.crt"
        path.write_bytes(path.read_bytes()[:100])
    reasons = {"other keys": "other keys", "another name": "another identity than 'n0'", "half of it": "broken"}
    [(level, text)] = setting.look()
    assert level == "warning"
    assert reasons.get(what, "was not issued by this federation's authority") in text
    assert setting.certificate.newest is before
    assert setting.look() == []


def test_its_end_is_said_a_month_before_once_a_day_and_when_it_has_come(tmp_path: Path) -> None:
    setting = Setting(tmp_path, days=31)
    assert setting.look() == []
    setting.now += 2 * DAY_S
    [(level, text)] = setting.look()
    assert (level, "covey ca issue n0" in text, "no restart is needed" in text) == ("warning", True, True)
    assert setting.look() == []
    setting.now += DAY_S
    assert [level for level, _ in setting.look()] == ["warning"]
    setting.now += 28 * DAY_S
    [(level, text)] = setting.look()
    assert (level, "'n0' expired at" in text, "covey ca issue n0" in text) == ("error", True, True)
    assert setting.look() == []
    assert tls_key_in(setting.folder / "tls.key")
    setting.now -= 31 * DAY_S
    issue(setting.ca, "n0", setting.folder, days=300)
    assert [level for level, _ in setting.look()] == ["info"]


async def test_it_is_looked_at_again_and_again(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    keeping = asyncio.create_task(setting.certificate.keep(0.01))
    issue(setting.ca, "n0", setting.folder, days=300)
    async with asyncio.timeout(60):
        while not setting.taken:  # noqa: ASYNC110 -- it is taken in a thread
            await asyncio.sleep(0.01)
    keeping.cancel()
