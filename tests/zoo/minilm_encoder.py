"""all-MiniLM-L6-v2 in torch, and its export: a BERT encoder, mean pooling, L2 normalisation.

Torch is needed only to make the ONNX file, once; `minilm.py` uses the file.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

WIDTH, HEADS, LAYERS, INNER = 384, 12, 6, 1536
VOCABULARY, POSITIONS, EPSILON = 30522, 512, 1e-12


class Embeddings(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, WIDTH)
        self.position_embeddings = nn.Embedding(POSITIONS, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, EPSILON)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        words = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        embedded: Tensor = self.LayerNorm(words + self.position_embeddings(positions))
        return embedded


class Layer(nn.Module):  # type: ignore[misc]
    """A post-norm transformer layer; the modules are named as in the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        projections = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in ("query", "key", "value")})
        self.attention = nn.ModuleDict({"self": projections, "output": _output(WIDTH)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, INNER)})
        self.output = _output(INNER)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        mixed = self._attend(hidden, bias)
        output = self.attention["output"]
        hidden = output["LayerNorm"](output["dense"](mixed) + hidden)
        inner = nn.functional.gelu(self.intermediate["dense"](hidden))
        layered: Tensor = self.output["LayerNorm"](self.output["dense"](inner) + hidden)
        return layered

    def _attend(self, hidden: Tensor, bias: Tensor) -> Tensor:
        batch, length, _ = hidden.shape
        query, key, value = (
            linear(hidden).view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2)
            for linear in self.attention["self"].values()
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(WIDTH // HEADS) + bias
        mixed: Tensor = scores.softmax(-1) @ value
        return mixed.transpose(1, 2).reshape(batch, length, WIDTH)


class SentenceEncoder(nn.Module):  # type: ignore[misc]
    """Token ids, mask and token types, int64 `[batch, sequence]`, to unit embeddings, fp32 `[batch, 384]`."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList([Layer() for _ in range(LAYERS)])})

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        mask = attention_mask.to(torch.float32)
        hidden = self.embeddings(input_ids, token_type_ids)
        bias = (1.0 - mask[:, None, None, :]) * -10000.0
        for layer in self.encoder["layer"]:
            hidden = layer(hidden, bias)
        mask = mask.unsqueeze(-1)
        pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        unit: Tensor = nn.functional.normalize(pooled, dim=-1)
        return unit


def _output(width: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(width, WIDTH), "LayerNorm": nn.LayerNorm(WIDTH, EPSILON)})


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The fp32 tensors of a safetensors file: 8 bytes of header length, a JSON header, raw data."""
    with open(path, "rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        data = stream.read()
    tensors = {}
    for name, entry in header.items():
        if isinstance(entry, dict) and entry.get("dtype") == "F32":
            start, stop = entry["data_offsets"]
            array = np.frombuffer(data[start:stop], np.float32).reshape(entry["shape"])
            tensors[name] = torch.from_numpy(array.copy())
    return tensors


def encoder(weights: Path) -> SentenceEncoder:
    """The model with its trained weights; every parameter must be in the file."""
    model = SentenceEncoder()
    missing = model.load_state_dict(read_safetensors(weights), strict=False).missing_keys
    if missing:
        raise ValueError(f"{weights} has no {missing[0]}")
    model.eval()
    return model


def write_onnx(weights: Path, path: Path) -> None:
    """Export with dynamic batch and sequence."""
    ids = torch.randint(1000, 2000, (2, 16))
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=POSITIONS)}
    names = ("input_ids", "attention_mask", "token_type_ids")
    # The exporter logs that torchvision is missing, which nothing here needs.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            encoder(weights),
            (ids, torch.ones_like(ids), torch.zeros_like(ids)),
            input_names=list(names),
            output_names=["sentence_embedding"],
            dynamic_shapes=dict.fromkeys(names, dims),
            opset_version=21,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=False)
