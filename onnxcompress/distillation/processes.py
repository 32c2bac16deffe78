"""Several processes that train together, as torchrun starts them: each takes a share of every step's data."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onnxcompress.errors import CompressError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Processes:
    """This process among its peers; one alone by default.

    Attributes:
        count: of processes.
        rank: of this one; the first scores, decides and writes.
        device: of this one's tensors.
    """

    count: int = 1
    rank: int = 0
    device: torch.device = CPU

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """What the first process has, for all."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def equalize(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give every process the first one's parameters."""
        if self.count == 1:
            return
        with torch.no_grad():
            for parameter in parameters:
                torch.distributed.broadcast(parameter.data, src=0)

    def average_gradients(self, parameters: Sequence[nn.Parameter], rows: int, loss: Tensor) -> float:
        """Make every gradient the mean over the rows of all processes, and tell the loss, averaged likewise.

        A process without rows has gradients of zero.
        """
        if self.count == 1:
            return float(loss.detach())
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        told = loss.detach().to(gradients[0].device).reshape(1)
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), told]) * rows
        flat = torch.cat([flat, flat.new_tensor([float(rows)])])
        torch.distributed.all_reduce(flat)
        flat = flat[:-1] / flat[-1]
        at = 0
        for parameter, gradient in zip(parameters, gradients, strict=True):
            size = gradient.numel()
            parameter.grad = flat[at : at + size].view_as(gradient)
            at += size
        return float(flat[-1])


@contextlib.contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """The processes that the environment of torchrun tells of (gloo, or NCCL where all have a GPU), or this one alone.

    Raises:
        CompressError: cuda is asked for and is not there, or the others cannot be reached.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise CompressError("device cuda: torch finds no GPU here; use cpu")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    count = int(os.environ.get("WORLD_SIZE", "1"))
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if torch.distributed.is_available() and torch.distributed.is_initialized():  # by the caller, who ends it too
        yield Processes(torch.distributed.get_world_size(), torch.distributed.get_rank(), place)
        return
    if count == 1:
        yield Processes(device=place)
        return
    if on_gpu:
        torch.cuda.set_device(place)
    try:
        torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    except (RuntimeError, ValueError) as error:
        raise CompressError(f"the {count} processes of torchrun do not reach each other: {error}") from error
    try:
        yield Processes(count, torch.distributed.get_rank(), place)
    finally:
        torch.distributed.destroy_process_group()
