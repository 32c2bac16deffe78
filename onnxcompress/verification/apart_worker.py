"""The process of `run_apart`: `python -m onnxcompress.verification.apart_worker MODEL FOLDER OUTPUT...`.

It runs the feeds of `FOLDER/feeds.npz` one after another. For feed i it leaves `i.npz`, the outputs by index, or
`i.txt`, why there are none; each appears whole or not at all, so that what is missing tells on which feed it ended.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np

from onnxcompress.errors import CompressError, first_line
from onnxcompress.runtime.session import open_session, run
from onnxcompress.runtime.worker import read_feeds, write_feeds
from onnxcompress.verification.apart import plain


def main(model: str, folder: str, *outputs: str) -> None:
    """Run every feed."""
    # A Ctrl-C in the terminal is the parent's to handle: it stops this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    place = Path(folder)
    session = open_session(model)
    for index, feed in enumerate(read_feeds(str(place / "feeds.npz"))):
        try:
            arrays = [plain(np.asarray(array)) for array in run(session, feed, outputs)]
            write_feeds(str(place / "part.npz"), [{str(i): array for i, array in enumerate(arrays)}])
            os.replace(place / "part.npz", place / f"{index}.npz")
        except CompressError as error:
            (place / "part.txt").write_text(first_line(error), "utf-8")
            os.replace(place / "part.txt", place / f"{index}.txt")


if __name__ == "__main__":
    main(*sys.argv[1:])
