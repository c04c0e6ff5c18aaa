"""Specifications that the tests submit."""

from __future__ import annotations


def spec(
    name="digits", *, task="digits", options="", rounds=3, min_nodes=2, seed=7, extra="", training="", policy=""
) -> str:
    """A specification as a user would write it."""
    return f"""
name = "{name}"
seed = {seed}
[task]
name = "{task}"
[task.options]
{options}
[training]
learning_rate = 0.1
batch_size = 32
{training}
[rounds]
count = {rounds}
min_nodes = {min_nodes}
{policy}
{extra}
"""


def async_spec(
    name="digits",
    *,
    policy="staleness-mean",
    options="",
    updates=20,
    min_nodes=2,
    seed=7,
    extra="",
    training="",
    rounds="",
    every=5,
) -> str:
    """A specification of an asynchronous run whose nodes send one gradient at a time; all its updates are kept."""
    return f"""
name = "{name}"
mode = "async"
seed = {seed}
[task]
name = "digits"
[training]
learning_rate = 0.5
batch_size = 64
local_steps = 1
{training}
[exchange]
payload = "gradient"
[aggregation]
name = "{policy}"
[aggregation.options]
{options}
[evaluation]
every = {every}
[keep]
updates = 100000
[async]
updates = {updates}
min_nodes = {min_nodes}
[rounds]
{rounds}
{extra}
"""


BIG = {"task": "synthetic", "options": "parameters = 3000000"}
"""An update of a dozen chunks."""
GOSSIP = """
name = "gossip"
mode = "gossip"
seed = 3
[task]
name = "digits"
[data]
partition = "shards"
[training]
local_steps = 2
learning_rate = 0.1
[gossip]
steps = {steps}
min_nodes = {nodes}
"""
"""With `{steps}` and `{nodes}` to be filled in."""
