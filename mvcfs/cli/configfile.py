"""The TOML file with defaults of options.

Top-level keys are options of any command that has them; a table named after a command holds that command's alone and
wins over the top level. Every key is checked, of all commands: a typing error must not pass in silence.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvcfs.errors import InvalidArgument, NotFound

_NOT_IN_FILES: frozenset[str] = frozenset({"config", "help"})


def default_config_paths() -> tuple[Path, ...]:
    """Where a file is looked for when none is named, first found first taken."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return (Path(base) / "mvcfs" / "config.toml", Path("/etc/mvcfs.toml"))


def load_config(path: Path | None, command: str, options: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Reads the defaults that a file gives the options of one command.

    Args:
        path: The file; None looks at the usual places, where none needs to be.
        command: The command that runs.
        options: By command, its options: parameter name to flag.

    Returns:
        Defaults by parameter name: strings, booleans, or lists of strings.

    Raises:
        NotFound: A file was named and isn't there.
        InvalidArgument: It can't be read, or has an unknown key, which is named.
    """
    found = path or next((each for each in default_config_paths() if each.is_file()), None)
    if found is None:
        return {}
    try:
        document = tomllib.loads(found.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"there is no configuration file {found}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"configuration file {found}: {error}") from error
    return _defaults(found, document, command, options)


def _defaults(
    path: Path, document: Mapping[str, Any], command: str, options: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    general: dict[str, Any] = {}
    own: dict[str, Any] = {}
    everything = frozenset().union(*options.values()) - _NOT_IN_FILES
    for key, value in document.items():
        if not isinstance(value, dict):
            name = _known(path, key, key, everything)
            if name in options.get(command, {}):
                general[name] = _value(path, key, value)
            continue
        if key not in options:
            raise InvalidArgument(f"configuration file {path}: unknown table [{key}]; commands are {_list(options)}")
        known = frozenset(options[key]) - _NOT_IN_FILES
        for inner, inner_value in value.items():
            name = _known(path, f"{key}.{inner}", inner, known)
            checked = _value(path, f"{key}.{inner}", inner_value)
            if key == command:
                own[name] = checked
    return general | own


def _known(path: Path, shown: str, key: str, names: frozenset[str]) -> str:
    name = key.replace("-", "_")
    if name not in names:
        raise InvalidArgument(f"configuration file {path}: unknown key {shown!r}")
    return name


def _value(path: Path, key: str, value: Any) -> str | bool | list[str]:
    if isinstance(value, bool):
        return value
    if isinstance(value, (str, int, float)):
        return str(value)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return [str(each) for each in value]
    raise InvalidArgument(
        f"configuration file {path}: {key} must be a string, a number, true, false or a list of strings"
    )


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names))
