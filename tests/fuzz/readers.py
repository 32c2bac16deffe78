"""Fuzzes whatever reads a stranger's file: `python -m tests.fuzz.readers model --seconds 1800`.

Targets: model (read, inspected, optimized, quantized), npz, recipe, ranges. It needs atheris (Linux, x86-64). Inputs
start from seeds made here; a corpus that grows is kept in `--corpus FOLDER`. Any exception but the errors that are
raised on purpose is a finding, and so is an input that takes over 20 seconds or 2 GB; its bytes are left in a file
`crash-...` in the current folder. Where a model breaks a rule of ONNX, an exception that the command line would explain
with that (`onnxcompress.cli.unexpected`) is none.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

# Atheris does not get at the code of modules that the finder of an editable installation loads.
sys.meta_path = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]

with atheris.instrument_imports(include=["onnxcompress", "onnx_ir"]):
    import onnxcompress.calibration.ranges
    import onnxcompress.inspection
    import onnxcompress.model_io
    import onnxcompress.npz
    import onnxcompress.optimizer
    import onnxcompress.quantizer
    import onnxcompress.recipe

from onnxcompress.errors import CompressError  # noqa: E402
from tests.fuzz.mutation import mutated  # noqa: E402
from tests.fuzz.seeds import SEEDS  # noqa: E402

Target = Callable[[Path], object]


def read_model(path: Path) -> None:
    try:
        model = onnxcompress.model_io.load_model(path)
        onnxcompress.inspection.inspect(path)
        onnxcompress.optimizer.optimize(model.clone())
        onnxcompress.quantizer.quantize(model, mode="weight-only")
    except CompressError:
        raise
    except (MemoryError, RecursionError) as error:
        raise CompressError("as told on the command line") from error
    except Exception:
        if not breaks_a_rule(path):
            raise


def breaks_a_rule(path: Path) -> bool:
    """What the command line says of a model after an unforeseen exception, asked in a process that may crash."""
    child = os.fork()
    if child == 0:
        from onnxcompress.cli.unexpected import verdict

        os.close(2)
        os._exit(1 if verdict(path) else 0)
    return os.waitpid(child, 0)[1] != 0


TARGETS: dict[str, tuple[str, Target]] = {
    "model": ("m.onnx", read_model),
    "npz": ("d.npz", lambda path: onnxcompress.npz.read_npz(path, {"x"})),
    "recipe": ("r.toml", onnxcompress.recipe.read_recipe),
    "ranges": ("r.json", onnxcompress.calibration.ranges.Ranges.load),
}


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Mostly a change of the model's meaning; else of its bytes."""
    generator = random.Random(seed)
    if generator.random() < 0.9:
        found = mutated(data, generator)
        if found is not None and len(found) <= most:
            return found
    changed: bytes = atheris.Mutate(data, most)
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="a folder that is read and added to")
    options = parser.parse_args()
    name, target = TARGETS[options.target]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        (Path(folder) / "weights.bin").write_bytes(bytes(4096))
        corpus = options.corpus or Path(folder) / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        for index, seed in enumerate(SEEDS[options.target]()):
            (corpus / f"seed{index}").write_bytes(seed)

        def once(data: bytes) -> None:
            path.write_bytes(data)
            try:
                target(path)
            except CompressError as error:
                if "\n" in str(error):
                    raise ValueError(f"an error of several lines: {error}") from error

        arguments = [
            sys.argv[0], str(corpus), f"-max_total_time={options.seconds}", "-timeout=20", "-rss_limit_mb=3000",
            "-max_len=20000", "-print_final_stats=1",
        ]  # fmt: skip
        custom = {"custom_mutator": mutate} if options.target == "model" else {}
        atheris.Setup(arguments, once, **custom)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
