"""`--data` in all its forms: functions, .npz, folders, images; and what each refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from PIL import Image

from onnxcompress.data import DataSet, ImageOptions, open_data, random_feed, split
from onnxcompress.errors import DataError
from onnxcompress.functions import load_function

Array = np.ndarray[Any, Any]


def model_of(inputs: str) -> ir.Model:
    """A model with these inputs, as in `float[n,3] x, int64[1] k`."""
    header = '<ir_version: 10, opset_import: ["" : 21]>'
    text = f"{header} g ({inputs}) => (float[1] y) {{ y = Constant<value_floats=[0.0]>() }}"
    return ir.from_proto(onnx.parser.parse_model(text))


X = "float[n, 3] x"


def feeds(count: int) -> list[dict[str, Array]]:
    return [{"x": np.full((1, 3), i, np.float32)} for i in range(count)]


def values(data: DataSet) -> list[float]:
    return [float(feed["x"][0, 0]) for feed in data]


def write_function(folder: Path, body: str, name: str = "feeds.py") -> str:
    (folder / name).write_text(f"import numpy as np\n\n\ndef fn():\n{body}\n")
    return f"{folder / name}:fn"


class TestSources:
    def test_function_is_called_anew_for_every_pass(self, tmp_path: Path) -> None:
        spec = write_function(tmp_path, "    for i in range(3):\n        yield {'x': np.full((1, 3), i, np.float32)}")
        data = open_data(spec, model_of(X))
        assert values(data) == values(data) == [0, 1, 2]

    def test_npz_is_one_feed_and_a_folder_is_in_name_order(self, tmp_path: Path) -> None:
        for name, value in (("b", 1), ("a", 0), ("c", 2)):
            np.savez(tmp_path / f"{name}.npz", x=np.full((1, 3), value, np.float32))
        assert values(open_data(tmp_path / "c.npz", model_of(X))) == [2]
        assert values(open_data(tmp_path, model_of(X))) == [0, 1, 2]

    def test_several_are_chained(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "one.npz", x=np.full((1, 3), 9, np.float32))
        spec = write_function(tmp_path, "    return [{'x': np.zeros((1, 3), np.float32)}]")
        sources: list[str | Path] = [spec, tmp_path / "one.npz"]
        assert values(open_data(sources, model_of(X))) == [0, 9]

    def test_python_lists_and_functions(self) -> None:
        assert values(open_data(feeds(2), model_of(X))) == [0, 1]
        assert values(open_data(lambda: feeds(2), model_of(X))) == [0, 1]

    def test_inputs_the_model_lacks_are_left_out(self) -> None:
        given: list[dict[str, Array]] = [{"x": np.zeros((1, 3), np.float32), "label": np.zeros(1)}]
        (feed,) = open_data(given, model_of(X))
        assert list(feed) == ["x"]

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("missing.npz", "no such file"),
            ("nothing", "not data; give FILE.py:FUNCTION"),
            ("missing.py:fn", "no such file"),
            ("feeds.py:other", "no function 'other'"),
        ],
    )
    def test_source_that_is_not_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
    ) -> None:
        write_function(tmp_path, "    return []")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match=message):
            open_data(source, model_of(X))

    def test_broken_npz_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "broken.npz").write_bytes(b"not a zip")
        with pytest.raises(DataError, match=r"broken\.npz: not a readable \.npz"):
            list(open_data(tmp_path / "broken.npz", model_of(X)))

    def test_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"neither \.npz files nor images"):
            open_data(tmp_path, model_of(X))

    def test_iterator_is_refused(self) -> None:
        with pytest.raises(DataError, match="walked once only"):
            open_data(iter(feeds(2)), model_of(X))

    def test_function_that_fails_midway_is_named(self, tmp_path: Path) -> None:
        spec = write_function(tmp_path, "    yield {'x': np.zeros((1, 3), np.float32)}\n    raise KeyError('gone')")
        with pytest.raises(DataError, match=r"feeds\.py:fn failed: KeyError: 'gone'"):
            list(open_data(spec, model_of(X)))


class TestFeedsAreChecked:
    @pytest.mark.parametrize(
        ("feed", "message"),
        [
            ({"y": np.zeros((1, 3), np.float32)}, "input 'x' is missing .it has y"),
            ({"x": np.zeros((1, 3))}, "input 'x' is float64, the model takes float32"),
            ({"x": np.zeros((1, 4), np.float32)}, r"has shape \(1, 4\), the model takes \?x3"),
            ({"x": np.zeros(3, np.float32)}, r"has shape \(3,\), the model takes \?x3"),
            ([1.0], "a list, not a dict"),
        ],
    )
    def test_misfit_names_the_feed(self, feed: Any, message: str) -> None:
        with pytest.raises(DataError, match=f"feed 1: .*{message}"):
            list(open_data([*feeds(1), feed], model_of(X)))


class TestSplit:
    @pytest.mark.parametrize(("total", "held"), [(200, 40), (100, 20), (40, 16), (32, 16)])
    def test_last_fifth_and_at_least_sixteen(self, total: int, held: int) -> None:
        used, kept, count, _ = split(open_data(feeds(total), model_of(X)))
        assert count == total
        assert values(used) + values(kept) == list(range(total))
        assert len(values(kept)) == held

    def test_few_feeds_serve_twice_and_it_is_said(self) -> None:
        used, kept, _, note = split(open_data(feeds(10), model_of(X)))
        assert values(used) == values(kept) == list(range(10))
        assert "only 10 feeds" in note

    def test_no_feeds(self) -> None:
        with pytest.raises(DataError, match="no feeds"):
            split(open_data([], model_of(X)))


class TestRandomFeed:
    def test_is_seeded_and_typed(self) -> None:
        model = model_of("float[n, 3] x, int64[2] k")
        feed = random_feed(model, {"x": (5, 3)}, 0)
        assert (feed["x"].shape, feed["x"].dtype, feed["k"].dtype) == ((5, 3), np.float32, np.int64)
        assert np.array_equal(feed["x"], random_feed(model, {"x": (5, 3)}, 0)["x"])

    def test_dynamic_dimension_must_be_given(self) -> None:
        with pytest.raises(DataError, match="give them with --shape x="):
            random_feed(model_of(X), {}, 0)

    def test_sizes_without_measure(self) -> None:
        for size in (2**62, 2**31):
            with pytest.raises(DataError, match="more than 4 GiB: give --data"):
                random_feed(model_of(f"float[{size}, 3] x"), {}, 0)

    def test_unknown_input(self) -> None:
        with pytest.raises(DataError, match="names 'z'"):
            random_feed(model_of(X), {"x": (1, 3), "z": (1,)}, 0)


class TestLoadFunction:
    def test_file_may_import_its_neighbour(self, tmp_path: Path) -> None:
        (tmp_path / "neighbour_of_feeds.py").write_text("VALUE = 7\n")
        (tmp_path / "asks.py").write_text("from neighbour_of_feeds import VALUE\ndef fn(): return VALUE\n")
        assert load_function(f"{tmp_path / 'asks.py'}:fn")() == 7

    def test_file_of_a_package_may_import_relatively(self, tmp_path: Path) -> None:
        package = tmp_path / "outer_pack" / "inner_pack"
        package.mkdir(parents=True)
        for folder in (package, package.parent):
            (folder / "__init__.py").touch()
        (package.parent / "base.py").write_text("VALUE = 8\n")
        (package / "asks.py").write_text("from ..base import VALUE\ndef fn(): return VALUE\n")
        assert load_function(f"{package / 'asks.py'}:fn")() == 8

    def test_package_of_a_taken_name_is_refused(self, tmp_path: Path) -> None:
        package = tmp_path / "json"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "decoder.py").write_text("def fn(): return 1\n")
        with pytest.raises(ValueError, match=r"json\.decoder is already another module"):
            load_function(f"{package / 'decoder.py'}:fn")

    def test_module(self) -> None:
        assert load_function("math:sqrt")(4) == 2

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("no_colon.py", "is not FILE.py:FUNCTION"),
            ("a.py:not a name", "is not FILE.py:FUNCTION"),
            ("no_such_module_at_all:fn", "cannot be imported: ModuleNotFoundError"),
            ("math:pi", "math:pi is not a function"),
            ("math:cube", "math has no function 'cube'"),
        ],
    )
    def test_bad_spec(self, spec: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            load_function(spec)

    def test_failing_file_is_named_and_tried_again(self, tmp_path: Path) -> None:
        file = tmp_path / "failing.py"
        file.write_text("1 / 0\n")
        with pytest.raises(ValueError, match=r"failing\.py fails when it is run: ZeroDivisionError"):
            load_function(f"{file}:fn")
        file.write_text("def fn(): return 3\n")
        assert load_function(f"{file}:fn")() == 3


IMAGE = "float[n, 3, 4, 6] image"


def save(path: Path, pixels: Array, mode: str | None = None) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path)
    return path


def ramp(height: int = 4, width: int = 6) -> Array:
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def read(folder: Path, inputs: str, **options: Any) -> Array:
    ((array,),) = (feed.values() for feed in open_data(folder, model_of(inputs), images=ImageOptions(**options)))
    return array


class TestImages:
    def test_default_is_rgb_nchw_over_255(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", ramp())
        found = read(tmp_path, IMAGE)
        assert (found.shape, found.dtype, found.flags.c_contiguous) == ((1, 3, 4, 6), np.float32, True)
        np.testing.assert_allclose(found[0], ramp().transpose(2, 0, 1) / 255, atol=1e-6)

    def test_bgr_nhwc_mean_and_std_by_channel_as_fed(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", ramp())
        found = read(
            tmp_path,
            "float16[1, 4, 6, 3] image",
            color="bgr",
            layout="nhwc",
            mean=(1.0, 2.0, 3.0),
            std=(2.0, 4.0, 8.0),
        )
        expected = (ramp()[None, :, :, ::-1].astype(np.float32) - [1, 2, 3]) / [2, 4, 8]
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, expected, atol=0.01)

    def test_uint8_input_gets_raw_pixels(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", ramp())
        found = read(tmp_path, "uint8[1, 3, 4, 6] image", mean=(9.0,), std=(3.0,))
        assert found.dtype == np.uint8
        assert np.array_equal(found[0], ramp().transpose(2, 0, 1))

    def test_input_without_batch(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", ramp())
        assert read(tmp_path, "float[3, 4, 6] image").shape == (3, 4, 6)

    @pytest.mark.parametrize("kind", ["L", "RGB", "RGBA", "P", "1"])
    def test_every_mode_feeds_color_and_grey_models(self, tmp_path: Path, kind: str) -> None:
        save(tmp_path / "a.png", np.full((4, 6, 3), 255, np.uint8), kind)
        np.testing.assert_allclose(read(tmp_path, IMAGE), np.ones((1, 3, 4, 6)), atol=1e-6)
        np.testing.assert_allclose(read(tmp_path, "float[1, 1, 4, 6] image"), np.ones((1, 1, 4, 6)), atol=1e-6)

    def test_grey_weighs_the_channels_as_itu_601(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", np.full((4, 6, 3), (200, 100, 50), np.uint8))
        grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
        np.testing.assert_allclose(read(tmp_path, "float[1, 1, 4, 6] image", std=(1.0,)), grey, atol=0.6)

    def test_16_bit_grey_is_scaled_not_clipped(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", np.full((4, 6), 0x8000, np.uint16))
        np.testing.assert_allclose(read(tmp_path, IMAGE, std=(1.0,)), 128)

    def test_size_from_the_option_when_the_model_has_none(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", ramp(30, 20))
        assert read(tmp_path, "float[n, 3, h, w] image", size=(8, 16)).shape == (1, 3, 8, 16)

    def test_stretch_crop_and_pad_on_halves(self, tmp_path: Path) -> None:
        """A picture twice as wide as the input: left half black, right half white."""
        picture = np.zeros((8, 16, 3), np.uint8)
        picture[:, 8:] = 255
        save(tmp_path / "a.png", picture)
        rows = {
            how: read(tmp_path, "float[1, 3, 8, 8] image", resize=how, mean=(51.0,))[0, 0] * 255 + 51
            for how in ("stretch", "crop", "pad")
        }
        for how in ("stretch", "crop"):
            np.testing.assert_allclose(rows[how][4, [0, 1, 6, 7]], [0, 0, 255, 255], atol=1)
        # padded: 8x4 in the middle, and above and below it the mean
        np.testing.assert_allclose(rows["pad"][[0, 1, 6, 7]], 51, atol=1e-3)
        np.testing.assert_allclose(rows["pad"][2:6, [0, 1, 6, 7]], [[0, 0, 255, 255]] * 4, atol=1)

    def test_crop_keeps_the_ratio(self, tmp_path: Path) -> None:
        """Of a picture with columns 0..31, a square keeps the middle 16; stretched, it spans all."""
        picture = np.repeat(np.arange(32, dtype=np.uint8) * 8, 3).reshape(1, 32, 3).repeat(16, 0)
        save(tmp_path / "a.png", picture)
        cropped = read(tmp_path, "float[1, 3, 16, 16] image", resize="crop", std=(1.0,))
        assert np.array_equal(cropped[0, 0, 0], np.arange(8, 24) * 8)
        stretched = read(tmp_path, "float[1, 3, 16, 16] image", std=(1.0,))
        assert stretched[0, 0, 0, 0] < 16
        assert stretched[0, 0, 0, -1] > 232

    def test_padding_is_the_mean_in_bgr_too(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", np.full((4, 8, 3), 200, np.uint8))
        found = read(tmp_path, "float[1, 3, 8, 8] image", resize="pad", color="bgr", mean=(10.0, 20.0, 30.0))
        np.testing.assert_allclose(found[0, :, 0, 0], 0, atol=1e-6)

    def test_folder_is_in_name_order(self, tmp_path: Path) -> None:
        for name, level in (("b.png", 2), ("a.bmp", 1), ("c.png", 3)):
            save(tmp_path / name, np.full((4, 6, 3), level, np.uint8))
        data = open_data(tmp_path, model_of(IMAGE), images=ImageOptions(std=(1.0,)))
        assert [feed["image"].max() for feed in data] == [1, 2, 3]

    @pytest.mark.parametrize(
        ("inputs", "options", "message"),
        [
            ("float[1, 3, 4, 6] a, float[1] b", {}, "one input; this one's are: a, b"),
            ("int64[1, 3, 4, 6] image", {}, "is int64: images feed float or uint8"),
            ("float[1, 10] image", {}, "has 2 axes: an image has 4"),
            ("float[8, 3, 4, 6] image", {}, "takes batches of 8"),
            ("float[1, 4, 6, 3] image", {}, "has 4 channels as nchw.*try --layout nhwc"),
            ("float[1, 3, 4, 6] image", {"layout": "nhwc"}, "has 6 channels as nhwc.*try --layout nchw"),
            ("float[1, 3, h, w] image", {}, "give --image-size H,W"),
            ("float[1, 3, h, w] image", {"size": (0, 5)}, "give positive numbers"),
            (IMAGE, {"size": (8, 8)}, "--image-size 8,8: input 'image' takes 4,6"),
            (IMAGE, {"mean": (1.0, 2.0)}, "--mean has 2 numbers: give 1 or 3"),
            (IMAGE, {"std": (1.0,) * 4}, "--std has 4 numbers: give 1 or 3"),
            (IMAGE, {"resize": "squash"}, "--resize squash: give one of stretch, crop, pad"),
            (IMAGE, {"color": "hsv"}, "--color hsv"),
            (IMAGE, {"layout": "chw"}, "--layout chw"),
        ],
    )
    def test_refused(self, tmp_path: Path, inputs: str, options: dict[str, Any], message: str) -> None:
        save(tmp_path / "a.png", ramp())
        with pytest.raises(DataError, match=message):
            open_data(tmp_path, model_of(inputs), images=ImageOptions(**options))

    @pytest.mark.parametrize("content", [b"", b"not an image", "cut"])
    def test_corrupt_image_is_named(self, tmp_path: Path, content: bytes | str) -> None:
        file = tmp_path / "bad.png"
        if content == "cut":
            whole = save(file, np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).read_bytes()
            content = whole[: len(whole) // 2]
        assert isinstance(content, bytes)
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.png: not a readable image"):
            list(open_data(tmp_path, model_of(IMAGE)))

    def test_without_pillow_it_says_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save(tmp_path / "a.png", ramp())
        monkeypatch.setitem(sys.modules, "PIL", None)
        with pytest.raises(DataError, match=r"pip install onnxcompress\[images\]"):
            list(open_data(tmp_path, model_of(IMAGE)))

    def test_pillow_is_imported_only_when_an_image_is_read(self) -> None:
        code = "import sys, onnxcompress.data, onnxcompress.images; print('PIL' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"
