"""Whether all nodes of a run can share what it shares, whatever options their tasks have; what that is, in words.

And whether any of them can have evaluation data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from covey.errors import CoveyError, SpecError
from covey.layout import Layout
from covey.learning.models.sharing import shortened
from covey.learning.task import Task
from covey.worker.program.context import Form, RunContext, difference

ON_NODES = "evaluate_on_nodes"
"""The option of `digits`, and of other tasks that have it, by which nodes get evaluation data."""


def check_forms(context: RunContext, form: Form) -> None:
    """Hold the models of all nodes with options of their own against the run's, and patterns against their tensors.

    Args:
        context: The run.
        form: Of its model with the options that nodes have without options of their own.

    Raises:
        SpecError: What is shared, or frozen, is not the same on a node as in the run; a node's options are wrong; or a
            pattern matches nothing on any node.
    """
    unmatched = form.sharing.unmatched
    for node, other in _others(context):
        unmatched &= other.sharing.unmatched
        if context.own_models:
            continue
        for what, mine, theirs in (("shared", other.layout, form.layout), ("frozen", other.frozen, form.frozen)):
            if set(mine.tensors) != set(theirs.tensors):
                text = difference(mine, theirs).replace("here", "there")
                raise SpecError(f"task.nodes.{node}: {what} tensors must be the same on all nodes: {text}")
    if unmatched:
        key, pattern = min(unmatched)
        names = shortened(tensor.name for tensor in (*form.layout.tensors, *form.local.tensors, *form.frozen.tensors))
        raise SpecError(f"exchange.{key}: {pattern!r} matches no parameter or buffer; the model has {names}")


def _others(context: RunContext) -> Iterator[tuple[str, Form]]:
    """Of each set of options that some node has of its own, the first node, and the form of its model."""
    known = set[str]()
    for node, options in sorted(context.spec.task.nodes.items()):
        text = json.dumps(options, sort_keys=True)
        if text in known:
            continue
        known.add(text)
        try:
            yield node, context.variant(options).form()
        except CoveyError as error:
            raise SpecError(f"task.nodes.{node}: {error}") from error


def nobody_evaluates(context: RunContext) -> str:
    """Why none of the nodes that a run asks for an evaluation can have data for it; empty: some may have.

    What is known without the nodes' data is that the task has no `eval_data`, or an option that says so.
    """
    section, asked = context.spec.task, context.spec.evaluation.nodes
    own = [options for node, options in section.nodes.items() if not asked or node in asked]
    tasks = [context.variant(options).task for options in own]
    if not asked or len(own) < len(asked):
        tasks.append(context.task)
    if any(task.has_eval_data and getattr(task.options, ON_NODES, True) for task in tasks):
        return ""
    return f"task {section.name!r} gives nodes no evaluation data (Task.eval_data){evaluates_with(context.task)}"


def evaluates_with(task: Task) -> str:
    """What to write so that a task gives nodes evaluation data, to be said behind that it does not; empty: unknown."""
    return "" if getattr(task.options, ON_NODES, True) else f"; it does with [task.options] {ON_NODES} = true"


def in_words(form: Form) -> str:
    """What travels, what stays, what nobody changes; empty where all of it is shared."""
    if not form.local.tensors and not form.frozen.tensors:
        return ""
    kinds = (("shared", form.layout), ("local", form.local), ("frozen", form.frozen))
    return "; ".join(f"{name}: {_listed(layout)}" for name, layout in kinds if layout.tensors)


def _listed(layout: Layout) -> str:
    return f"{layout.nbytes:,} bytes in {shortened(tensor.name for tensor in layout.tensors)}"
