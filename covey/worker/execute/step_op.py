"""The operation of the coordinator's worker by which a run goes on: by its rule, or by its policy."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from covey.worker.execute.from_spec import by_policy
from covey.worker.execute.steps.open_step import OpenStep
from covey.worker.execute.steps.policy_step import PolicyStep
from covey.worker.execute.steps.rule_step import RuleStep
from covey.worker.jobs.steps import StepJob, StepResult
from covey.worker.program.host import Host


def step(job: StepJob, host: Host) -> StepResult:
    """Judge the job's answers, and make the next version where there is to be one.

    Raises:
        LayoutError: A version or a state file is not of the layout.
        RunFailed: The rule refuses these updates, or the policy cannot be applied.
        WorkerError: A file that the state refers to was not named.
    """
    began = time.monotonic()
    torch.set_num_threads(1)  # an evaluation may have set another number, on which sums depend
    opened = OpenStep(job, host)
    kind = PolicyStep if by_policy(opened.spec) else RuleStep
    return replace(kind(opened).result(), seconds=time.monotonic() - began)
