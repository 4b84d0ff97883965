r"""What the errors of hdfs-native mean, in one table.

The client raises FileNotFoundError, FileExistsError and OSError without an errno; everything else is a RuntimeError whose
text is the debug form of a Rust value: `RPCError("java.class.Name", "message\n\tat …")` for what a NameNode answered,
`Variant("message")` for what the client itself found. A range past the end is a panic, which is no Exception at all.
"""

from __future__ import annotations

import re

from mvcfs.errors import (
    AlreadyExists,
    CorruptData,
    InvalidArgument,
    IsADirectory,
    LimitExceeded,
    MvcfsError,
    NameTooLong,
    NotEmpty,
    NotFound,
    PermissionDenied,
    StorageError,
    Transient,
    UnknownOutcome,
)

Meaning = type[MvcfsError] | None
"""None: the call broke off. That is Transient for one that only reads, UnknownOutcome for one that changes something."""

TABLE: tuple[tuple[str, str, Meaning], ...] = (
    # what it is, a part of its message, what it means; the first row that fits counts
    ("FileNotFoundError", "Path is not a file", IsADirectory),
    ("FileNotFoundError", "", NotFound),
    ("FileExistsError", "", AlreadyExists),
    ("IsADirectoryError", "", IsADirectory),
    ("OSError", "", None),
    # A parent that is a file, as ParentNotDirectoryException elsewhere.
    ("org.apache.hadoop.security.AccessControlException", "(is not a directory)", NotFound),
    ("org.apache.hadoop.security.AccessControlException", "", PermissionDenied),
    ("org.apache.hadoop.security.authorize.AuthorizationException", "", PermissionDenied),
    ("org.apache.hadoop.fs.ParentNotDirectoryException", "", NotFound),
    ("org.apache.hadoop.fs.PathIsNotEmptyDirectoryException", "", NotEmpty),
    ("org.apache.hadoop.fs.InvalidPathException", "", InvalidArgument),
    ("org.apache.hadoop.fs.FileAlreadyExistsException", "", AlreadyExists),
    ("org.apache.hadoop.hdfs.protocol.AlreadyBeingCreatedException", "", AlreadyExists),
    ("org.apache.hadoop.hdfs.protocol.FSLimitException$PathComponentTooLongException", "", NameTooLong),
    ("org.apache.hadoop.hdfs.protocol.FSLimitException$MaxDirectoryItemsExceededException", "", LimitExceeded),
    ("org.apache.hadoop.hdfs.protocol.NSQuotaExceededException", "", LimitExceeded),
    ("org.apache.hadoop.hdfs.protocol.DSQuotaExceededException", "", LimitExceeded),
    ("org.apache.hadoop.hdfs.protocol.QuotaByStorageTypeExceededException", "", LimitExceeded),
    ("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "", Transient),
    ("org.apache.hadoop.ipc.RetriableException", "", Transient),
    ("org.apache.hadoop.ipc.StandbyException", "", Transient),
    ("org.apache.hadoop.ipc.ObserverRetryOnActiveException", "", Transient),
    ("java.io.IOException", "must both be directories", AlreadyExists),
    ("java.io.IOException", "must both be files", AlreadyExists),
    ("java.io.IOException", "is a directory or file under source", InvalidArgument),
    ("java.io.IOException", "less than configured minimum value", InvalidArgument),
    ("java.io.IOException", "could only be written to", Transient),
    ("InvalidArgument", "", InvalidArgument),
    ("InvalidPath", "", InvalidArgument),
    ("UrlParseError", "", InvalidArgument),
    ("SASLError", "", PermissionDenied),
    ("GSSAPIError", "", PermissionDenied),
    ("NoSASLMechanism", "", PermissionDenied),
    ("DataTransferError", "", None),
    ("ChecksumError", "", None),
    ("InvalidRPCResponse", "", None),
    ("BlocksNotFound", "", None),
    ("OperationFailed", "", None),
    ("InternalError", "", None),
    ("PanicException", "past end", CorruptData),
)

_RPC = re.compile(r'(?:Fatal)?RPCError\("(?P<what>[^"]+)", "(?P<message>.*)"\)\Z', re.DOTALL)
_OTHER = re.compile(r"(?P<what>[A-Za-z]+)(?:\((?P<message>.*)\))?\Z", re.DOTALL)


def is_panic(error: BaseException) -> bool:
    """Whether hdfs-native panicked. Its exception is made anew in every module that pyo3 builds, so the name must do."""
    return type(error).__name__ == "PanicException"


def translate(error: BaseException, about: str, *, mutates: bool) -> MvcfsError:
    """The error of the protocol for one of the client's.

    Args:
        error: What the client raised.
        about: Store and path, for the message.
        mutates: Whether the call would have changed what others see.
    """
    what, message = _parse(error)
    broke_off = UnknownOutcome if mutates else Transient
    for name, part, meaning in TABLE:
        if name == what and part in message:
            return (meaning or broke_off)(f"{about}: {message}")
    return StorageError(f"{about}: {what}: {message}")


def _parse(error: BaseException) -> tuple[str, str]:
    """What it is (a Java class, a variant of the client's, a Python type) and its message without a stack trace."""
    text = str(error)
    match = (_RPC.match(text) or _OTHER.match(text)) if isinstance(error, RuntimeError) else None
    if match is None:
        kinds = (FileNotFoundError, FileExistsError, IsADirectoryError, OSError)
        kind = next((kind for kind in kinds if isinstance(error, kind)), type(error))
        return kind.__name__, _first_line(text)
    return match["what"], _first_line((match["message"] or "").replace('\\"', '"')).strip('"')


def _first_line(text: str) -> str:
    return re.split(r"\n|\\n", text, maxsplit=1)[0].strip()
