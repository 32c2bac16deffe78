"""Real models: what `quantize` makes of them passes, or fails in the row that says what it lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from onnxcompress.quantizer import quantize
from onnxcompress.verification import verify
from tests.verification.broken import failed
from tests.zoo import ZooModel


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppocr-cls", "magika", "silero-16k", "minilm"])
def test_int8_of_real_models_passes(name: str, zoo: Callable[[str], ZooModel]) -> None:
    model = zoo(name)
    result = quantize(model.path(), data=model.data).model
    found = verify(model.path(), result, data=model.data)
    assert found.passed, found.failures
    assert found.sampled == 32


@pytest.mark.slow
def test_lines_that_are_read_wrongly_fail_on_clean_data(zoo: Callable[[str], ZooModel]) -> None:
    """Plain static int8 of the text recogniser, which `compress` refuses."""
    model = zoo("ppocr-rec")
    result = quantize(model.path(), data=model.data).model
    found = verify(model.path(), result, data=model.feeds(24))
    assert failed(found) == {"top1 of softmax_11.tmp_0"}
