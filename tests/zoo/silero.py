"""Silero VAD, a voice detector with an LSTM, in two variants: 8 and 16 kHz (`If`), and 16 kHz alone.

The audio is made here: vowels (harmonics of a gliding pitch through two resonances), noise and silence.
A feed carries the state that the float model has after the chunks before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from .packages import SILERO, unpacked

Feed = dict[str, np.ndarray[Any, Any]]
Array = np.ndarray[Any, Any]

VOWELS = ((730, 1090), (270, 2290), (300, 870), (530, 1840), (570, 840))
"""First and second resonances, Hz (Peterson and Barney, 1952)."""


def both_rates() -> Path:
    """`input` fp32 `[batch, 576]` (16 kHz) or `[batch, 288]` (8), `state` `[2, batch, 128]`, `sr` int64."""
    return unpacked(SILERO) / "silero_vad/data/silero_vad.onnx"


def rate_16k() -> Path:
    """The same for 16 kHz alone."""
    return unpacked(SILERO) / "silero_vad/data/silero_vad_16k_op15.onnx"


def feeds_both() -> Iterator[Feed]:
    """150 chunks at 16 kHz, then 75 at 8 kHz."""
    yield from _chunks(both_rates(), seed=1, rate=16000, count=150)
    yield from _chunks(both_rates(), seed=2, rate=8000, count=75)


def feeds_16k() -> Iterator[Feed]:
    """200 chunks."""
    yield from _chunks(rate_16k(), seed=3, rate=16000, count=200)


def _chunks(path: Path, seed: int, rate: int, count: int) -> Iterator[Feed]:
    size = 512 * rate // 16000
    context = size // 8
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    audio = np.pad(sound(np.random.default_rng(seed), size * count, rate), (context, 0))
    state = np.zeros((2, 1, 128), np.float32)
    for start in range(0, size * count, size):
        chunk = audio[None, start : start + context + size]
        feed = {"input": chunk, "state": state, "sr": np.array(rate, np.int64)}
        yield feed
        state = session.run(["stateN"], feed)[0]


def sound(rng: np.random.Generator, samples: int, rate: int) -> Array:
    """Half a second each of vowels, of noise, of near silence, in random order: fp32, -1..1."""
    parts = []
    length = rate // 2
    for _ in range(-(-samples // length)):
        kind = rng.integers(3)
        noise = rng.normal(0, (0.002, 0.08, 0.0005)[kind], length)
        parts.append(noise + _vowel(rng, length, rate) if kind == 0 else noise)
    return np.concatenate(parts)[:samples].astype(np.float32)


def _vowel(rng: np.random.Generator, length: int, rate: int) -> Array:
    pitch = np.linspace(rng.uniform(90, 220), rng.uniform(90, 220), length)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    resonances = VOWELS[rng.integers(len(VOWELS))]
    voice = np.zeros(length)
    for harmonic in range(1, int(0.45 * rate / pitch.max())):
        tone = harmonic * pitch.mean()
        gain = sum(1 / (1 + ((tone - center) / 90) ** 2) for center in resonances) / harmonic**0.5
        voice += gain * np.sin(harmonic * phase)
    loudness = np.sin(np.linspace(0, np.pi, length)) ** 0.5
    return 0.4 * loudness * voice / np.abs(voice).max()  # type: ignore[no-any-return]
