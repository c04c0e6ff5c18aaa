"""Combinations that are refused at submission, asked of the worker's own operation."""

import pytest
import torch

from covey.errors import SpecError
from covey.spec import parse_toml
from covey.worker.execute.coordinator_ops import describe
from covey.worker.jobs.runs import DescribeJob
from covey.worker.program.host import Host


def described(policy, exchange, mode="async"):
    text = f"""
name = "r"
mode = "{mode}"
[task]
name = "digits"
options = {{ hidden = 4 }}
[training]
local_steps = 1
[exchange]
{exchange}
[aggregation]
name = "{policy}"
"""
    return describe(DescribeJob(parse_toml(text).to_json()), Host(torch.device("cpu")))


@pytest.mark.parametrize(
    ("codec", "why"),
    [
        ("qsgd", "what 'qsgd' draws at random drowns"),
        ("random-k", "what 'random-k' draws at random drowns"),
        ("top-k", "what 'top-k' loses of each drowns"),
        ("scaled-sign", "what 'scaled-sign' loses of each drowns"),
    ],
)
def test_a_policy_that_compares_gradients_needs_them_whole(codec, why):
    exchange = f'payload = "gradient"\ncodec = "{codec}"\nerror_feedback = false'
    with pytest.raises(SpecError, match=f'^exchange.codec: this policy takes differences.*{why}.*"bf16"$'):
        described("kardam", exchange)
    described("kardam", exchange.replace(codec, "bf16"))
    described("buffered", exchange)


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ("buffered", 'parameters of an old version cannot be .*; choose "delta" or "gradient"'),
        ("kardam", 'this policy bounds how fast a gradient changes .*; choose "gradient".*'),
    ],
)
def test_parameters_are_only_for_a_policy_that_mixes_them(policy, text):
    with pytest.raises(SpecError, match=f"^exchange.payload: {text}$"):
        described(policy, 'payload = "parameters"')
    described("staleness-mean", 'payload = "parameters"')
    described("mean", 'payload = "parameters"', mode="rounds")
