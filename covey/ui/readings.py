"""What the page reads: each answer is a page of bounded size, however long the run."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from covey.client.connection import Connection
from covey.client.progress.limits import distances_of, privacy_of
from covey.client.progress.nodes import Verdicts, nodes_of
from covey.client.values import Run, Status
from covey.errors import CoveyError
from covey.metrics import ratios
from covey.ui.asked import choice, number, text
from covey.ui.audits import Audits
from covey.ui.histories import Histories, charts
from covey.ui.outcomes import outcome_of
from covey.ui.shapes import differences, plain, run_json, spreads
from covey.ui.source import Source

PAGE = 50
MOST = 200
"""Entries of one answer."""
POINTS = 500
"""Of a curve."""
LOGGED_ROUNDS = 20
LOOKED_RUNS = 100
"""The newest runs, among which those of a node are looked for."""


class Readings:
    """The addresses that only read.

    Args:
        source: The federation.
        action: What the page sends along with changes.
    """

    def __init__(self, source: Source, action: str) -> None:
        self._source, self._action = source, action
        self._histories, self._audits, self._verdicts = Histories(source), Audits(source), Verdicts()

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/api/status", self.status),
            Route("/api/runs", self.runs),
            Route("/api/runs/{run}", self.run),
            Route("/api/runs/{run}/curves", self.curves),
            Route("/api/runs/{run}/outcome", self.outcome),
            Route("/api/runs/{run}/rounds", self.rounds),
            Route("/api/runs/{run}/rounds/{number:int}", self.round),
            Route("/api/runs/{run}/nodes", self.run_nodes),
            Route("/api/runs/{run}/log", self.log),
            Route("/api/runs/{run}/site-log", self.site_log),
            Route("/api/runs/{run}/audit", self.audit),
            Route("/api/nodes", self.nodes),
            Route("/api/node", self.node),
            Route("/api/node/runs", self.node_runs),
            Route("/api/events", self.events),
            Route("/api/differences", self.differences),
        ]

    def status(self, request: Request) -> Response:
        """Whether a coordinator answers, what it does, and who the reader is to it; an error is the answer, too."""
        about = {"action": self._action, "where": self._where()}
        try:
            status, name = self._source.ask(lambda c: _status(c, self._source.is_live))
        except CoveyError as error:
            return JSONResponse(about | {"live": False, "message": str(error), "coordinator": None, "identity": ""})
        live = status is not None
        message = "" if live else f"no coordinator is running on {self._where()}: this is its record"
        return JSONResponse(about | {"live": live, "message": message, "coordinator": plain(status), "identity": name})

    def _where(self) -> str:
        return str(self._source.target.data_dir or self._source.target.server)

    def runs(self, request: Request) -> Response:
        """A page of runs, the newest first."""
        limit, before = max(1, number(request, "limit", PAGE, MOST)), text(request, "before")
        runs = self._source.ask(lambda c: c.runs(limit + 1, before=before))
        following = runs[limit - 1].run if len(runs) > limit else ""
        return JSONResponse({"runs": [run_json(run) for run in runs[:limit]], "next": following, "now": time.time()})

    def run(self, request: Request) -> Response:
        """A run: how far it is, what it waits for, and what privacy it has spent."""
        shown = self._run(request)
        privacy, is_coordinated = plain(privacy_of(shown)), shown.is_coordinated
        about = {"run": run_json(shown, whole=True), "privacy": privacy, "coordinated": is_coordinated}
        return JSONResponse(about | {"now": time.time()})

    def outcome(self, request: Request) -> Response:
        """Of a run that only evaluates, or makes statistics: what came of it."""
        run = self._run(request)
        return JSONResponse(self._source.aside(lambda c: outcome_of(c, run)) | {"ended": run.ended})

    def run_nodes(self, request: Request) -> Response:
        """What each node does now for a run, what it did in it, and what became of its last answers."""
        name = request.path_params["run"]

        def question(connection: Connection) -> dict[str, Any]:
            known = nodes_of(connection, connection.run(name), self._verdicts, MOST)
            at_work = [plain(work) | {"node": node.node, "drill": node.drill} for node, work in known.at_work]
            away = [{"node": node.node, "state": node.state, "since": node.last_seen_at} for node in known.away]
            return {
                "at_work": at_work,
                "at_work_count": known.at_work_count,
                "away": away,
                "away_count": known.away_count,
                "contributions": plain(known.contributions),
                "verdicts": known.verdicts,
                "drills": known.drills,
                "now": time.time(),
            }

        return JSONResponse(self._source.ask(question))

    def curves(self, request: Request) -> Response:
        """Curves, thinned, and how near they are to what ends the run; of a long record of what was read so far."""
        run = self._run(request)
        over: Any = choice(request, "over", ("rounds", "seconds", "bytes"))
        wanted = request.query_params.getlist("metric")
        history = self._histories.of(run)
        drawn = charts(history, run, over, wanted, POINTS)
        with history.lock:
            stops = [] if run.ended else plain(distances_of(run, history, time.time()))
        return JSONResponse(drawn | {"unit": run.unit, "ended": run.ended, "stops": stops})

    def rounds(self, request: Request) -> Response:
        """A page of rounds, the newest first; `before`: of those before this number."""
        name = request.path_params["run"]
        limit, before = max(1, number(request, "limit", PAGE, MOST)), number(request, "before", 0)

        def question(connection: Connection) -> Any:
            if not before:
                return connection.rounds(name, limit=limit, newest=True)
            first = max(0, before - 1 - limit)
            return connection.rounds(name, after=first, limit=before - 1 - first)

        rounds = self._source.ask(question)
        following = rounds[0].round if rounds and rounds[0].round > 1 else 0
        return JSONResponse({"rounds": plain(rounds[::-1]), "next": following, "now": time.time()})

    def round(self, request: Request) -> Response:
        """A round: each answer with its verdict's numbers, and how these lie among the others'."""
        name, wanted, after = request.path_params["run"], request.path_params["number"], text(request, "after")
        detail = self._source.ask(lambda c: c.round(name, wanted))
        updates = [update for update in detail.updates if update.node > after]
        shown = plain(detail) | {
            "updates": [plain(update) | {"metrics": ratios(update.metrics)} for update in updates[:MOST]],
            "next": updates[MOST - 1].node if len(updates) > MOST else "",
            "spreads": spreads(update.numbers for update in detail.updates),
            "metric_spreads": spreads(ratios(update.metrics) for update in detail.updates),
        }
        return JSONResponse(shown | {"now": time.time()})

    def log(self, request: Request) -> Response:
        """What happened to a run lately: its events, its newest rounds, and why nodes contributed nothing."""
        run = self._run(request)
        lines = self._source.aside(lambda c: c.run_log(run, rounds=LOGGED_ROUNDS))
        return JSONResponse({"lines": plain(lines[-MOST:][::-1]), "rounds": LOGGED_ROUNDS})

    def site_log(self, request: Request) -> Response:
        """What a node shares of its log about a run: the newest lines, in order; `before`: those before this number."""
        run, node = request.path_params["run"], text(request, "node")
        limit, before = max(1, number(request, "limit", PAGE, MOST)), number(request, "before", 0)
        log = self._source.aside(lambda c: c.site_log(run, node))
        lines = [line for line in log.lines if not before or line.number < before]
        following = lines[-limit].number if len(lines) > limit else 0
        return JSONResponse({"explanation": log.explanation, "lines": plain(lines[-limit:]), "next": following})

    def audit(self, request: Request) -> Response:
        """Everything that is signed of a run, checked now; it may take long."""
        return JSONResponse(self._audits.of(self._run(request)))

    def nodes(self, request: Request) -> Response:
        """A page of nodes, by name."""
        limit, after = max(1, number(request, "limit", 100, MOST)), text(request, "after")
        nodes = self._source.ask(lambda c: c.nodes(limit + 1, after=after))
        following = nodes[limit - 1].node if len(nodes) > limit else ""
        return JSONResponse({"nodes": plain(nodes[:limit]), "next": following, "now": time.time()})

    def node(self, request: Request) -> Response:
        """A node, and what happened to it."""
        name = text(request, "name")
        return JSONResponse(plain(self._source.ask(lambda c: c.node(name))) | {"now": time.time()})

    def node_runs(self, request: Request) -> Response:
        """The newest runs in which a node takes part, or may: of a very large one not all names are told."""
        name = text(request, "name")
        runs = self._source.aside(lambda c: c.runs(LOOKED_RUNS))
        own = [run for run in runs if name in run.roster or run.roster_size > len(run.roster)]
        shown = [{"run": run.run, "name": run.full_name, "state": run.state} for run in own]
        return JSONResponse({"runs": shown, "more": len(runs) == LOOKED_RUNS})

    def events(self, request: Request) -> Response:
        """The newest events, the newest first."""
        limit = number(request, "limit", 100, 1000)
        return JSONResponse({"events": plain(self._source.ask(lambda c: c.events(limit=limit)))})

    def differences(self, request: Request) -> Response:
        """In which keys the specifications of two runs differ."""
        first, second = self._source.ask(lambda c: (c.run(text(request, "first")), c.run(text(request, "second"))))
        keys = differences(first.spec, second.spec)
        return JSONResponse({"first": run_json(first), "second": run_json(second), "differences": keys})

    def _run(self, request: Request) -> Run:
        name = request.path_params["run"]
        return self._source.ask(lambda c: c.run(name))


def _status(connection: Connection, live: bool) -> tuple[Status | None, str]:
    """What a coordinator does, and by which name it knows the reader; of a record at rest, that it can be read."""
    if live:
        return connection.status(), connection.identity.name
    connection.runs(1)
    return None, ""
