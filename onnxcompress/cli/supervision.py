"""Commands run in a process of their own, so that a model which crashes native code ends in one clear error.

ONNX Runtime, onnx and torch parse and run what a stranger wrote: where one of them is killed by a signal, no handler
in Python can say so. The parent does nothing but wait.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable

CRASHES = {
    "SIGSEGV": "reached into memory that is not its own",
    "SIGABRT": "gave up",
    "SIGBUS": "could not read a mapped file: it shrank, or the disk failed",
    "SIGFPE": "divided by zero",
    "SIGILL": "used an instruction that this processor does not have",
    "SIGKILL": "was killed: memory ran out, or somebody did it",
}
HANDED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")

PR_SET_PDEATHSIG = 1
SI_KERNEL = 0x80


def supervised(work: Callable[[], None]) -> None:
    """Do the work in a child process and exit as it does; a crash is told in one line, with exit status 1.

    Call it before threads start and libraries are loaded: the process forks. Signals are handed on to the child;
    where the parent is killed, the child is too. Elsewhere than on Linux the work is done in this process.
    """
    if sys.platform != "linux":
        work()
        return
    parent = os.getpid()
    watched = {signal.SIGCHLD, *(getattr(signal, name) for name in HANDED_ON)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child == 0:
        _die_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        work()
        return
    code = _wait(child, watched)
    # The child has flushed and closed what is shared: nothing is left to clean up here.
    os._exit(code if code >= 0 else _explain(-code))


def _wait(child: int, watched: set[signal.Signals]) -> int:
    """The child's exit code, the negative of the signal that ended it; until then, signals are handed on."""
    while True:
        told = signal.sigwaitinfo(watched)
        if told.si_signo == signal.SIGCHLD:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
        elif told.si_code != SI_KERNEL:  # what a terminal sends, as on Ctrl-C, it sends to the child too
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, told.si_signo)


def _explain(number: int) -> int:
    """The exit status for a child that a signal ended; what happened goes to standard error."""
    name = signal.Signals(number).name if number in set(signal.Signals) else ""
    if name not in CRASHES:
        return 128 + number
    hint = "the model is probably malformed, or too large for this machine"
    os.write(2, f"error: native code {CRASHES[name]} ({name}): {hint}\n".encode())
    return 1


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before this was set
        os._exit(1)
