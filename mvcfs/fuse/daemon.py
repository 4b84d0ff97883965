"""Puts a mount into the background: fork first, then everything else, and say how it went before letting go.

Threads and clients of stores don't survive a fork, so nothing that makes them may run before `start_daemon`. The child
speaks through a pipe: its process id, then that it serves or why it can't. Only after that does the parent return,
so `mvcfs mount && cp …` works. If the child dies without a word, the parent names the log.
"""

from __future__ import annotations

import fcntl
import logging
import logging.handlers
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from mvcfs.errors import MvcfsError, NotPermitted
from mvcfs.fuse.wire import decode_error, decode_line, encode_error, encode_line

_log = logging.getLogger(__name__)

LOG_BYTES = 10 << 20
LOG_FILES = 4

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _RotatingLog(logging.handlers.RotatingFileHandler):
    """A bounded log that standard error follows too: what libraries print on their own belongs there."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1, encoding="utf-8", errors="backslashreplace"
        )
        self._take_standard_streams()

    def doRollover(self) -> None:  # noqa: N802
        """Starts a new file."""
        super().doRollover()
        self._take_standard_streams()

    def _take_standard_streams(self) -> None:
        if self.stream is not None:
            for descriptor in (1, 2):
                os.dup2(self.stream.fileno(), descriptor)


def log_to_stderr(level: int) -> None:
    """Logs to standard error, for a mount in the foreground."""
    _log_to(logging.StreamHandler(), level)


def _log_to(handler: logging.Handler, level: int) -> None:
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)


def open_log(path: Path) -> None:
    """Checks, before the fork, that the log can be written.

    Raises:
        NotPermitted: It can't.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise NotPermitted(f"can't write the log {path}: {error.strerror}") from None


def start_daemon(serve: Callable[[Callable[[], None]], int], log: Path, level: int) -> None:
    """Runs `serve` in a background process and returns once it says that it is ready.

    Args:
        serve: Takes what to call when ready, returns the process's exit status. An error that it raises before it was
            ready is raised here; a later one is logged.
        log: Its log file.
        level: Least level that is logged.

    Raises:
        MvcfsError: What `serve` raised, or that it died.
    """
    open_log(log)
    reader, writer = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        _run_child(serve, writer, log, level)
    os.close(writer)
    os.waitpid(child, 0)
    _await_ready(reader, log)


def _run_child(serve: Callable[[Callable[[], None]], int], writer: int, log: Path, level: int) -> None:
    """The background process; never returns."""
    status = 1
    said = False

    def say(value: dict[str, object]) -> None:
        try:
            os.write(writer, encode_line(value))
        except BrokenPipeError:
            _log.warning("Nobody waits for the mount any more")

    def ready() -> None:
        nonlocal said
        said = True
        say({"ready": True})
        os.close(writer)

    try:
        _leave_session(writer)
        _log_to(_RotatingLog(log), level)
        say({"pid": os.getpid()})
        status = serve(ready)
    except BaseException as error:  # noqa: BLE001  (the process ends here, whatever it was)
        _log.critical("The mount has ended", exc_info=not isinstance(error, MvcfsError) or said)
        if not said:
            _log.critical("%s", error)
            say({"error": encode_error(error)})
    finally:
        logging.shutdown()
        os._exit(status)


def _leave_session(keep: int) -> None:
    """Lets go of the terminal, the current directory and descriptors that a shell handed down."""
    os.chdir("/")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor != keep:
            _close_if_inherited(descriptor)


def _close_if_inherited(descriptor: int) -> None:
    """Closes a descriptor that would survive exec: what this process opened itself is close-on-exec."""
    try:
        if not fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
            os.close(descriptor)
    except OSError:
        return  # the descriptor that listed the folder


def _await_ready(reader: int, log: Path) -> None:
    pid: int | None = None
    with open(reader, "rb") as lines:
        try:
            for line in lines:
                message = decode_line(line)
                if "ready" in message:
                    return
                if "error" in message:
                    raise decode_error(message["error"])
                pid = message.get("pid", pid)
        except KeyboardInterrupt:
            if pid is not None:
                os.kill(pid, signal.SIGTERM)
            raise
    raise MvcfsError(f"the mount's background process died before it served; its log is {log}")
