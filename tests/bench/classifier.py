"""A text classifier on a sentence encoder, in torch."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from tests.zoo.minilm_encoder import WIDTH, encoder

SHARPNESS = 20.0
"""Embeddings have length 1; their inner products with the topics' rows need this to become confident logits."""


class TextClassifier(nn.Module):  # type: ignore[misc]
    """Token ids, mask and token types, int64 `[batch, sequence]`, to logits, fp32 `[batch, classes]`.

    The table of words, half of all parameters, stays as it was trained.
    """

    def __init__(self, weights: Path, classes: int) -> None:
        super().__init__()
        self.encoder = encoder(weights)
        self.encoder.embeddings.word_embeddings.requires_grad_(False)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        unit = self.encoder(input_ids, attention_mask, token_type_ids)
        logits: Tensor = self.head(SHARPNESS * unit)
        return logits
