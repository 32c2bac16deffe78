"""Training the benchmarks' dense models: once, into the zoo's cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch

from onnxcompress.exporter import export
from onnxcompress.model_io import save_model
from tests.zoo.packages import cache_folder, locked

Batch = tuple[Mapping[str, torch.Tensor], torch.Tensor]


def trained(name: str, train: Callable[[], torch.nn.Module], example: Mapping[str, torch.Tensor]) -> Path:
    """The ONNX file of a trained module, made when the cache does not hold it.

    Args:
        name: of the file, with a revision that is raised when the training changes.
        train: gives the module; its forward method takes the example's names.
        example: inputs; axis 0 is the batch, and axis 1 of integer inputs the sequence, both dynamic.
    """
    path = cache_folder() / f"{name}.onnx"
    with locked(path):
        if not path.is_file():
            module = train()
            dynamic = {
                key: {0: "batch"} if value.is_floating_point() else {0: "batch", 1: "sequence"}
                for key, value in example.items()
            }
            save_model(export(module, dict(example), dynamic=dynamic, output_names=["logits"]), path)
    return path


def fit(
    module: torch.nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    *,
    epochs: int,
    steps: int,
    rate: float,
    weight_decay: float,
    name: str,
) -> torch.nn.Module:
    """Train a classifier with AdamW, one cycle of the learning rate, cross-entropy with label smoothing 0.1.

    Args:
        module: logits from a batch's inputs, by name; trained in place.
        batches: those of an epoch.
        epochs, steps: how many, and steps an epoch.
        rate: the highest learning rate.
        weight_decay: of AdamW.
        name: for the lines that tell how far it is.
    """
    optimizer = torch.optim.AdamW(module.parameters(), rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps, pct_start=0.2)
    started = time.process_time()
    module.train()
    for epoch in range(epochs):
        total = 0.0
        for inputs, labels in batches(epoch):
            loss = torch.nn.functional.cross_entropy(module(**inputs), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.process_time() - started
        print(f"{name}: epoch {epoch + 1} of {epochs}, loss {total / steps:.4f}, {seconds:.0f} CPU seconds", flush=True)
    return module.eval()
