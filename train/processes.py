"""The processes of one training, as `accelerate launch` starts them; a training that is alone has one.

Each computes its share of every batch, and their gradients are summed, so that more processes change the speed and not
the result (but for the order of sums, and for dropout).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState

T = TypeVar("T")


class Processes:
    """What they share. All of them must make the same calls in the same order."""

    def __init__(self) -> None:
        self._state = PartialState(cpu=not torch.cuda.is_available())
        self.rank: int = self._state.process_index
        self.count: int = self._state.num_processes
        self.is_main: bool = self._state.is_main_process
        found: torch.device = self._state.device
        self.device = found if found.type == "cuda" else torch.device("cpu")

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part."""
        return items[self.rank :: self.count]

    def total(self, value: float) -> float:
        """The sum of all processes' values."""
        if self.count == 1:
            return value
        summed = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return float(summed)

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Give every process the sum of all gradients."""
        if self.count == 1:
            return
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.flatten() for gradient in found])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in found])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def wait(self) -> None:
        """Until all are here."""
        self._state.wait_for_everyone()
