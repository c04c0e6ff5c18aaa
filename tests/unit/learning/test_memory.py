"""Errors that say that there is no memory left are told from others, and name the limit."""

from __future__ import annotations

import errno
import resource

import pytest
import torch

from covey.errors import OutOfMemory, TaskError
from covey.learning.memory import is_out_of_memory, out_of_memory
from covey.learning.task import task_errors


def test_what_python_torch_and_the_system_raise():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    for other in (RuntimeError("shapes differ"), OSError(errno.ENOSPC, "full"), ValueError("can't allocate memory")):
        assert not is_out_of_memory(other)


def test_the_text_names_the_place_the_limit_and_what_to_do(monkeypatch):
    text = str(out_of_memory("train", MemoryError(), "task.py:3, in loss"))
    assert text.startswith("train: no memory left (task.py:3, in loss); this machine has ")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (3 << 29, 3 << 29))
    text = str(out_of_memory("train", MemoryError("so much")))
    assert "no memory left: so much; this worker may have 1.5 GiB: raise that ([limits] memory_gib" in text
    assert text.endswith("or choose a smaller training.batch_size or model")


def test_a_tasks_own_code_that_has_no_memory_is_no_error_of_the_task():
    with pytest.raises(OutOfMemory, match="loss: no memory left"), task_errors("loss"):
        raise MemoryError
    with pytest.raises(TaskError), task_errors("loss"):
        raise ValueError("no")
