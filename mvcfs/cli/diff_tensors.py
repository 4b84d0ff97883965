"""`mvcfs diff --tensors`: which tensors of safetensors files changed, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvcfs.cli import exits
from mvcfs.cli.dispatch import call
from mvcfs.cli.options import OutputOptions, StoreOptions
from mvcfs.cli.output import Progress, print_error, print_json, print_line, print_table
from mvcfs.cli.place import Place
from mvcfs.cli.units import format_size

_LETTERS = {"added": "A", "removed": "D", "changed": "M"}


def show_tensors(
    place: Place, args: dict[str, Any], stores: StoreOptions, output: OutputOptions, *, exit_code: bool
) -> int:
    """Compares and prints.

    Args:
        place: Where A is.
        args: Those of `diff`.
        stores: How the store is reached without a mount.
        output: How the result is shown.
        exit_code: Whether differences make the exit code 1.
    """
    with Progress("diff", quiet=output.json) as progress:
        result = call(place, "diff_tensors", args, stores, on_progress=progress.update)
    if output.json:
        print_json(result)
    else:
        _print(result)
    return exits.FAILED if exit_code and (result["tensors"] or result["not_listed"]) else exits.OK


def _print(result: Mapping[str, Any]) -> None:
    if result["tensors"]:
        rows = [
            (_LETTERS[row["change"]], _name(row), _kind(row), _difference(row), _file(row)) for row in result["tensors"]
        ]
        print_table(("", "tensor", "kind", "difference", "file"), rows)
    if result["not_listed"]:
        print_line(f"… and {result['not_listed']} more")
    if result["files_not_compared"]:
        print_error(f"{result['files_not_compared']} changed files were not looked at: name a directory after --")
    totals = result["totals"]
    counts = [f"{totals[key]} {key}" for key in ("added", "removed", "changed", "same") if totals[key]]
    read = f"; {format_size(result['read_bytes'])} read of each side" if result["read_bytes"] else ""
    print_line(f"{result['files']} changed files: {', '.join(counts)}{read}" if counts else "no tensor differs")


def _name(row: Mapping[str, Any]) -> str:
    return str(row["name"] if row["name"] is not None else row["old_name"])


def _file(row: Mapping[str, Any]) -> str:
    old, new = row["old_file"], row["file"]
    return f"{old} → {new}" if old is not None and new is not None and old != new else str(new or old)


def _kind(row: Mapping[str, Any]) -> str:
    """Kind and shape: `F32 [4096, 4096]`, both where they changed."""
    old, new = (
        None if row[f"{side}dtype"] is None else f"{row[f'{side}dtype']} {row[f'{side}shape']}" for side in ("old_", "")
    )
    return f"{old} → {new}" if old is not None and new is not None and old != new else str(new or old)


def _difference(row: Mapping[str, Any]) -> str:
    if row["change"] != "changed" or (row["dtype"], row["shape"]) != (row["old_dtype"], row["old_shape"]):
        return ""
    if row["elements"] is None:
        return "differs, no numeric difference for this kind"
    parts = [f"{row['differing']} of {row['elements']}"]
    if row["largest_difference"] is not None:
        parts.append(f"largest {row['largest_difference']:.3g}, mean {row['mean_difference']:.3g}")
    if row["not_finite"]:
        parts.append(f"{row['not_finite']} NaN or infinite")
    return "; ".join(parts)
