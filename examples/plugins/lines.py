"""A tracker for Covey: a JSON object a line."""

import json

from covey.trackers.folders import Growing, named


class Lines(Growing):
    """DIR/NAME-RUN.jsonl: the run first, then a line for each point."""

    def path(self, folder, run):
        return folder / f"{named(run)}.jsonl"

    def head(self, run):
        return json.dumps(run.about() | dict(run.spec)).encode() + b"\n"

    def line(self, point):
        return json.dumps(point._asdict()).encode() + b"\n"
