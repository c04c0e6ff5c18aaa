"""A run that trains nothing (`[evaluation] only`): to all that goes by methods it has one without parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import nn
from typing_extensions import override

from covey.learning.task import Task
from covey.methods.contract import METHODS, Method, Part, RunForm
from covey.spec import RunSpec


class EvaluationOnly(Method):
    """Stands for the method of a run that only evaluates: the model is as that one has it, and nothing is exchanged.

    Args:
        trained: The method of the run's specification.

    Attributes:
        trained: The same.
    """

    global_model: ClassVar[bool] = False

    def __init__(self, trained: Method) -> None:
        super().__init__()
        self.trained = trained

    @override
    def local(self, model: nn.Module) -> frozenset[str]:
        return self.trained.local(model)

    @override
    def adapt(self, task: Task, model: nn.Module) -> frozenset[str]:
        return self.trained.adapt(task, model)

    @override
    def parts(self, form: RunForm) -> Sequence[Part]:
        """None: an answer is a signed statement with metrics."""
        return ()


def method_of_run(spec: RunSpec) -> Method:
    """The method that a run goes by.

    Raises:
        PluginError: It is not installed here.
        SpecError: Its options are wrong.
    """
    method = METHODS.make(spec.method.name, spec.method.options)
    return EvaluationOnly(method) if spec.evaluation.only else method
