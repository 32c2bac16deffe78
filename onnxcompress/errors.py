"""The errors a user can meet. Each message is one line that says what is wrong and what to do."""

from __future__ import annotations


class CompressError(Exception):
    """Base of every error that onnxcompress raises on purpose; the CLI prints it and exits with 1.

    Names from a model or an archive may hold anything: in the message, line breaks are blanks, and other control
    characters are escapes.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(" ".join(message.splitlines()), kept=""))


class ModelError(CompressError):
    """The model cannot be read, is not valid, or cannot be run."""


class DataError(CompressError):
    """The data (`--data`) cannot be read or does not fit the model's inputs."""


class CalibrationError(CompressError):
    """Ranges could not be taken: non-finite activations, no samples, ranges that do not fit the model."""


class EvaluationError(CompressError):
    """The evaluation function (`--eval`) failed or gave something that is not a score."""


class ExportError(CompressError):
    """A torch module could not be exported, or the exported model does not agree with it."""


class SignatureError(CompressError):
    """A model is not what was signed, or not by whom it should be; or it cannot be signed."""


def printable(text: str, *, kept: str = "\n\t") -> str:
    """Text that cannot steer a terminal: characters that do not print are shown as escapes, but for those kept."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """What an error of another library says, in one line of at most 400 characters; its class if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:400]
