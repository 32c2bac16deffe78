"""Opening an ONNX Runtime session."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxcompress.errors import DataError, ModelError, first_line
from onnxcompress.model_io import Source, check_file, initializer_bytes, load_model, saved_model
from onnxcompress.runtime.library import cuda_devices, register

Feeds = Mapping[str, np.ndarray[Any, Any]]
Array = np.ndarray[Any, Any]

IN_MEMORY_LIMIT = 1 << 30

KNOWN_DOMAINS = ("", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft", "com.microsoft.nchwc", "onnxcompress")
"""Of ONNX Runtime and of this library."""

OPENED_BYTES = 2 << 30
"""Models with more weights than this are written without being opened: they might not fit in memory."""


def opening(what: str, *, source: Source | None = None) -> Callable[[Path], None]:
    """For `save_model`: refuses a written model that ONNX Runtime does not open.

    Args:
        what: names it in the message.
        source: where the model came from. A model for another runtime, with operators that ONNX Runtime does not
            know or has no kernels for, is not refused; one that was broken before is told to be so.
    """

    def verify(path: Path) -> None:
        try:
            open_session(path, threads=1)
        except ModelError as error:
            if source is not None and not _is_for_this_runtime(source):
                return
            reason = str(error).removeprefix(f"{path}: ")
            raise ModelError(f"the {what} model does not load and was not written: {reason}") from error

    return verify


def _is_for_this_runtime(source: Source) -> bool:
    """Whether ONNX Runtime opens a model.

    Raises:
        ModelError: it should, and does not.
    """
    try:
        open_session(source, threads=1)
    except ModelError as error:
        model = load_model(source)
        known = {*KNOWN_DOMAINS, *(function.domain for function in model.functions.values())}
        if type(error.__cause__).__name__ == "NotImplemented" or any(
            node.domain not in known for graph in model.graphs() for node in graph
        ):
            return False
        raise
    return True


def open_session(
    source: Source,
    *,
    threads: int = 0,
    optimize: bool = True,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    keep_memory: bool = True,
    disabled_optimizers: Sequence[str] = (),
    profile_prefix: str | None = None,
    native: bool = True,
) -> ort.InferenceSession:
    """Open a model in ONNX Runtime, with the library of native kernels where there is one.

    Args:
        source: a path or a model.
        threads: within an operator; 0: ONNX Runtime's choice.
        optimize: False runs the graph as it is written.
        providers: execution providers, in order of preference.
        keep_memory: False gives the memory of each run back (slower, for calibration).
        disabled_optimizers: names of ONNX Runtime's graph transformers to leave out.
        profile_prefix: turns the profiler on; where its file goes.
        native: False runs the function bodies of our operators, as hosts without the library do.

    Raises:
        ModelError: ONNX Runtime refuses the model; the message is its own first line.
    """
    options = ort.SessionOptions()
    if native:
        register(options)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    if not keep_memory:
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
    name = "the model" if isinstance(source, ir.Model) else str(source)
    try:
        arguments: dict[str, Any] = {"sess_options": options, "providers": list(providers)}
        if disabled_optimizers:
            arguments["disabled_optimizers"] = list(disabled_optimizers)
        if isinstance(source, ir.Model) and initializer_bytes(source) < IN_MEMORY_LIMIT:
            return ort.InferenceSession(_serialized(source), **arguments)
        with saved_model(source) as path:
            if not path.is_file():
                raise ModelError(f"{path}: no such file")
            return ort.InferenceSession(str(path), **arguments)
    except ModelError:
        raise
    except Exception as error:  # ONNX Runtime raises its own, unrelated classes
        raise ModelError(f"{name}: ONNX Runtime cannot open it: {first_line(error)}") from error


def load(
    path: str | os.PathLike[str],
    *,
    sess_options: ort.SessionOptions | None = None,
    providers: Sequence[str] | None = None,
    public_key: str | os.PathLike[str] | None = None,
    signature: str | os.PathLike[str] | None = None,
) -> ort.InferenceSession:
    """Open a compressed (or any) model as a user's own session.

    Args:
        path: the model file.
        sess_options: the caller's options; default ones when None.
        providers: execution providers; None: CUDA's, then the CPU's, for a model that was compressed for CUDA where
            that works, and else the CPU's.
        public_key: PEM file; the model must be signed with its private key, or nothing of it reaches ONNX Runtime.
        signature: where the signature is; `<path>.sig` when None.

    The library of native kernels is registered on the options, once. On a platform whose package carries none, the
    function bodies that ride in the model run in its place, and one warning says so.

    With a key, a model without external data is read once, and the bytes that were checked are those that ONNX Runtime
    gets. One with external data it opens itself, after the check: a file that was replaced or written to in between is
    noticed then and the session refused, but ONNX Runtime maps these files, so who can write to the folder can still
    change them while the session runs. Keep signed models where only those whom you trust can write.

    Raises:
        ModelError: no such file, ONNX Runtime refuses the model, or the library is there and does not load.
        SignatureError: with a key: the model has no signature, not by this key, or was changed since.
        ValueError: a signature without a key.
    """
    check_file(path)
    if signature is not None and public_key is None:
        raise ValueError("a signature is checked with a key: give its public_key too")
    signed = None
    if public_key is not None:
        from onnxcompress.signing import Trust, verified

        signed = verified(path, signature, Trust(public_key))
    model = signed.content if signed is not None and signed.is_alone else str(path)
    options = sess_options if sess_options is not None else ort.SessionOptions()
    if not register(options):
        _warn_once()
    try:
        session = ort.InferenceSession(
            model, sess_options=options, providers=list(providers or _default_providers(path))
        )
    except Exception as error:
        raise ModelError(f"{path}: ONNX Runtime cannot open it: {first_line(error)}") from error
    if signed is not None and not signed.is_alone:
        signed.check_unchanged()
    return session


def _default_providers(path: str | os.PathLike[str]) -> Sequence[str]:
    from onnxcompress.lineage import target_of
    from onnxcompress.runtime.devices import CPU, CUDA, why_no_cuda

    return CUDA if cuda_devices() and target_of(path) == "cuda" and not why_no_cuda() else CPU


@functools.cache
def _warn_once() -> None:
    warnings.warn("this platform has no native kernels: models run through their function bodies", stacklevel=3)


def run(session: ort.InferenceSession, feeds: Feeds, outputs: Sequence[str] | None = None) -> list[Array]:
    """Run one feed, taking only the inputs that the model has.

    Raises:
        DataError: ONNX Runtime refuses the feed (shapes, types).
    """
    try:
        names = [i.name for i in session.get_inputs()]
        return list(session.run(outputs, {n: feeds[n] for n in names if n in feeds}))
    except Exception as error:
        raise DataError(f"the model cannot run this feed: {first_line(error)}") from error


def _serialized(model: ir.Model) -> bytes:
    from onnxcompress.model_io import external_tensors

    if any(True for _ in external_tensors(model)):
        model = ir.external_data.load_to_model(model.clone())
    data: bytes = ir.to_proto(model).SerializeToString()
    return data
