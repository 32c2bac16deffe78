"""`verify`: sound results pass, and each way to be broken fails in its own row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnxcompress
from onnxcompress.data import Feed
from onnxcompress.errors import DataError, EvaluationError, ModelError
from onnxcompress.lineage import SOURCE
from onnxcompress.model_io import digest, save_model
from onnxcompress.quantizer import quantize
from onnxcompress.runtime.session import open_session
from onnxcompress.signing import Trust
from onnxcompress.verification import Verification, consistency, verify
from tests.keys import pair
from tests.lowered import lowered_cnn, lowered_encoder
from tests.models import images, small_cnn
from tests.verification import broken
from tests.verification.broken import Models, failed, row, two_layers, two_outputs, vectors


def verified(models: Models) -> Verification:
    return verify(models.original, models.result, data=models.feeds)


def test_a_model_against_itself() -> None:
    found = verify(two_layers(), two_layers(), data=vectors(40))
    assert found.passed
    assert (found.feeds, found.sampled) == (40, 32)
    errors = [c.measured for c in found.checks if c.section in ("robustness", "consistency") and c.limit is not None]
    assert len(errors) == 8 and max(float(e) for e in errors if e is not None) < 1e-6
    assert {c.section for c in found.checks} == {"structure", "load", "clean data", "robustness", "consistency"}


@pytest.mark.parametrize("native", [False, True])
def test_int8_of_a_small_network_passes(native: bool) -> None:
    feeds = images(24)
    result = lowered_cnn().model if native else quantize(small_cnn(), data=feeds).model
    found = verify(small_cnn(), result, data=feeds)
    assert found.passed, found.failures
    assert row(found, "blur 3x3 box")[0] == row(found, "noise 0.5 std")[0] == "pass"
    assert row(found, "function bodies against the library")[0] == ("pass" if native else "skipped")


def test_int8_of_a_small_encoder_passes() -> None:
    lowered = lowered_encoder()
    found = verify(lowered.source, lowered.model, data=lowered.feeds, tolerance=0.05)
    assert not {name for name in failed(found) if "size" not in name}, found.failures
    assert row(found, "15% of ids replaced")[0] == "pass"


def test_ranges_that_hold_for_noise_pass() -> None:
    assert verified(broken.saturating(1.0)).passed


def test_ranges_clipped_to_a_tenth_fail_under_noise_alone() -> None:
    found = verified(broken.saturating(0.1))
    assert failed(found) == {"noise 0.25 std", "noise 0.5 std"}
    assert row(found, "error of y")[0] == "pass"


def test_a_channel_with_a_wrong_scale() -> None:
    assert {"cosine of y", "error of y"} <= failed(verified(broken.one_channel_wrong()))


def test_outputs_of_another_size_fail_where_no_cosine_shows_it() -> None:
    found = verified(broken.too_loud())
    assert "error of y" in failed(found)
    assert row(found, "cosine of y")[0] == "pass"


def test_channels_in_another_order() -> None:
    assert {"cosine of y", "error of y"} <= failed(verified(broken.channels_permuted()))


def test_a_result_that_is_not_finite_for_constants() -> None:
    found = verified(broken.not_finite_for_constants())
    assert "zeros" in failed(found) <= {"zeros", "constant mean", "constant least", "constant greatest"}
    assert row(found, "zeros")[1] == "not finite where the original is, on 24 of 24 feeds"
    (check,) = [check for check in found.checks if check.name == "zeros"]
    assert check.as_dict()["measured"] == "inf"


def test_an_original_that_is_not_finite_asks_for_nothing() -> None:
    models = broken.not_finite_for_constants()
    assert row(verify(models.result, models.original, data=models.feeds), "zeros")[0] == "pass"


def test_outputs_in_another_order() -> None:
    found = verify(two_outputs(), two_outputs("z y"), data=vectors())
    assert failed(found) == {"outputs"}
    assert row(found, "outputs")[1] == "the original's are y, z; the result's z, y"


def test_outputs_with_each_others_values() -> None:
    found = verify(two_outputs(), two_outputs(swap=True), data=vectors())
    assert {"cosine of y", "cosine of z", "error of y", "error of z"} <= failed(found)
    assert row(found, "outputs")[0] == "pass"


def test_a_result_that_does_something_else_in_a_batch() -> None:
    found = verify(two_layers(), broken.batch_dependent(), data=vectors())
    assert failed(found) == {"result, batch of 4 against one by one"}


def test_an_original_that_does_something_else_in_a_batch() -> None:
    found = verify(broken.batch_dependent(), broken.batch_dependent(), data=vectors())
    assert found.passed
    outcome, note = row(found, "batch of 4 against one by one")
    assert outcome == "skipped" and "depend on the batch" in note


def test_a_result_that_takes_single_rows_only() -> None:
    found = verify(two_layers(), broken.single_only(), data=vectors())
    assert failed(found) == {"size 0 of batch", "result, batch of 4 against one by one"}
    assert "does not run what the original runs" in row(found, "size 0 of batch")[1]


def test_a_result_that_does_not_run_the_data() -> None:
    feeds = [{"x": np.concatenate([feed["x"]] * 2)} for feed in vectors(4)]
    found = verify(two_layers(), broken.single_only(), data=feeds)
    assert failed(found) == {"runs"}
    assert row(found, "runs")[1].startswith("feed 0: the model cannot run this feed")


def test_threads_that_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(source: object, *, threads: int = 0, native: bool = True) -> ort.InferenceSession:
        models = broken.too_loud()
        return open_session(models.result if threads == 2 else models.original, threads=threads)

    monkeypatch.setattr(consistency, "open_session", opened)
    monkeypatch.setattr(consistency, "available_cores", lambda: 3)
    found = verify(two_layers(), two_layers(), data=vectors())
    assert failed(found) == {"2 threads against 1"}
    assert row(found, "3 threads against 1")[0] == "pass"


def test_function_bodies_that_do_something_else() -> None:
    """The body of the last operator, a QLinear, is made to give the opposite."""
    lowered = lowered_cnn()
    model = lowered.model.clone()
    node = model.graph.outputs[0].producer()
    assert node is not None and node.domain == "onnxcompress"
    function = model.functions[node.op_identifier()]
    index = next(i for i, output in enumerate(node.outputs) if output is model.graph.outputs[0])
    output = function.outputs[index]
    made = output.producer()
    assert made is not None
    name = output.name
    output.name = "positive"
    negated = ir.node("Neg", [output], num_outputs=1)
    negated.outputs[0].name = name
    function.append(negated)
    function.outputs[index] = negated.outputs[0]
    found = verify(lowered.source, model, data=images(8))
    assert "function bodies against the library" in failed(found)
    assert row(found, "error of y")[0] == "pass"


def test_beside_a_score_agreement_is_only_shown() -> None:
    models = broken.too_loud()
    found = verify(models.original, models.result, data=models.feeds, evaluate=lambda run: 1.0)
    assert row(found, "error of y") == ("skipped", "--eval decides; give --tolerance to hold it to one")
    assert found.passed


def test_the_score_decides() -> None:
    models = broken.too_loud()
    scores = iter([0.9, 0.85])
    found = verify(models.original, models.result, data=models.feeds, evaluate=lambda run: next(scores), max_drop=0.05)
    (check,) = [check for check in found.checks if check.name.startswith("score")]
    assert (check.outcome, check.measured) == ("fail", 0.85)
    assert check.limit == pytest.approx(0.855)


def test_a_tolerance_holds_agreement_beside_a_score() -> None:
    models = broken.too_loud()
    found = verify(models.original, models.result, data=models.feeds, evaluate=lambda run: 1.0, tolerance=0.02)
    assert "error of y" in failed(found)


def test_the_tolerance() -> None:
    models = broken.one_channel_wrong()
    strict = verify(models.original, models.result, data=models.feeds, tolerance=0.0)
    loose = verify(models.original, models.result, data=models.feeds, tolerance=0.5)
    assert {"cosine of y", "error of y"} <= failed(strict)
    assert not {"cosine of y", "error of y"} & failed(loose)


def test_the_same_seed_gives_the_same_numbers() -> None:
    models = broken.saturating(1.0)

    def numbers(seed: int) -> dict[str, object]:
        return verify(models.original, models.result, data=vectors(40, live=16), seed=seed).as_dict()

    assert numbers(1) == numbers(1)
    assert numbers(1) != numbers(2)


def test_data_is_walked_once_and_feeds_stay_as_they_are() -> None:
    feeds = vectors()
    before = [feed["x"].copy() for feed in feeds]
    walks = []

    def data() -> Iterator[Feed]:
        walks.append(1)
        yield from feeds

    verify(two_layers(), two_layers(), data=data)
    assert len(walks) == 1
    assert all(np.array_equal(feed["x"], array) for feed, array in zip(feeds, before, strict=True))


def test_without_data_the_rest_is_checked(tmp_path: Path) -> None:
    found = verify(two_layers(), two_layers())
    assert found.passed
    skipped = {check.section for check in found.checks if check.outcome == "skipped" and check.note == "no data"}
    assert skipped == {"clean data", "robustness", "consistency"}


def test_a_result_alone() -> None:
    found = verify(None, two_layers())
    assert found.passed
    assert {check.section for check in found.checks} == {"structure", "load"}


def test_the_digest_of_the_original(tmp_path: Path) -> None:
    source, other = tmp_path / "source.onnx", tmp_path / "other.onnx"
    save_model(two_layers(), source)
    save_model(two_layers(w=broken.WEIGHTS["w"] * 2), other)
    result = two_layers()
    result.metadata_props[SOURCE] = digest(source)
    assert row(verify(source, result), "source")[0] == "pass"
    outcome, note = row(verify(other, result), "source")
    assert outcome == "fail" and "made from another model" in note
    assert row(verify(two_layers(), result), "source")[0] == "skipped"
    assert row(verify(source, two_layers()), "source")[0] == "skipped"


def test_a_signature_that_does_not_hold_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    save_model(two_layers(), path)
    keys = pair(tmp_path, "key")
    onnxcompress.sign(path, private_key=keys.private)
    found = verify(None, path, trust=Trust(keys.public))
    assert found.passed and row(found, "holds")[0] == "pass"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr("onnxcompress.verification.verifier.load_model", lambda path: pytest.fail("it was opened"))
    found = verify(None, path, trust=Trust(keys.public))
    assert failed(found) == {"holds"}
    assert [check.outcome for check in found.checks] == ["fail", "skipped"]


@pytest.mark.parametrize(("arguments", "words"), [
    ({"original": None, "data": []}, "give it"),
    ({"evaluate": lambda run: 1.0}, "goes with data"),
    ({"data": [], "tolerance": -0.1}, "between 0 and 1"),
    ({"data": [], "tolerance": 2}, "between 0 and 1"),
    ({"data": [], "max_drop": 2}, "between 0 and 1"),
    ({"signature": "x.sig"}, "whom to trust"),
    ({"trust": Trust("key.pub")}, "give the path"),
])  # fmt: skip
def test_arguments_that_do_not_go_together(arguments: dict[str, object], words: str) -> None:
    original = arguments.pop("original", two_layers())
    with pytest.raises(ValueError, match=words):
        verify(original, two_layers(), **arguments)  # type: ignore[arg-type]


def test_what_is_wrong_with_the_original_or_the_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        verify(tmp_path / "absent.onnx", two_layers(), data=vectors())
    with pytest.raises(ModelError, match="no such file"):
        verify(two_layers(), tmp_path / "absent.onnx", data=vectors())
    with pytest.raises(DataError, match="no feeds"):
        verify(two_layers(), two_layers(), data=[])
    with pytest.raises(DataError, match="cannot run this feed"):
        verify(broken.single_only(), two_layers(), data=[{"x": np.zeros((2, 32), np.float32)}])
    with pytest.raises(EvaluationError, match="not a number"):
        verify(two_layers(), two_layers(), data=vectors(), evaluate=lambda run: "good")  # type: ignore[arg-type, return-value]


def test_what_is_wrong_with_the_result_is_a_failed_check(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    found = verify(two_layers(), path, data=vectors())
    assert failed(found) == {"reads"}
    assert row(found, "reads")[1].startswith(f"{path}: not a readable ONNX model")


def test_progress_tells_every_stage() -> None:
    stages = []
    verify(two_layers(), two_layers(), data=vectors(), progress=lambda stage, done, total: stages.append(stage))
    assert list(dict.fromkeys(stages)) == [
        "clean data", "perturbed data", "other sizes", "in a batch", "with other threads", "without the library",
    ]  # fmt: skip


def test_ctrl_c_ends_it() -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "perturbed data":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(two_layers(), two_layers(), data=vectors(), progress=stop)
