"""`mvcfs status`: what mounts do, what isn't in the store yet, what went wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from mvcfs.cli.dispatch import call
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.output import print_error, print_json, print_line, print_table
from mvcfs.cli.place import Place, every_mount, locate
from mvcfs.cli.units import format_duration, format_size
from mvcfs.errors import MvcfsError

HELP = """Show mounts, their models and branches, and what is not in the store yet.

\b
Examples:
  mvcfs status
  mvcfs status /models
  mvcfs status --json /models/llama/main
"""


def status(
    target: TargetOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
    path: Annotated[
        str | None, typer.Argument(metavar="PATH", help="A mount, a model or a branch; all mounts without it.")
    ] = None,
) -> None:
    """Prints the state of the mount that `path` is in, or of all mounts of this host."""
    if path is None and target.store is None:
        _status_of_all(output, stores)
        return
    place = locate(path or "", target.store)
    result = _ask(place, stores)
    if output.json:
        print_json(result)
    else:
        _show(result)


def _ask(place: Place, stores: StoreOptions) -> dict[str, Any]:
    where = {"mountpoint": place.mount.mountpoint} if place.mount else {}
    return call(place, "status", place.target(), stores) | where


def _status_of_all(output: OutputOptions, stores: StoreOptions) -> None:
    results: list[dict[str, Any]] = []
    for place in every_mount():
        try:
            results.append(_ask(place, stores))
        except MvcfsError as error:
            results.append({"mountpoint": place.shown, "state": "unreachable", "error": str(error)})
    if output.json:
        print_json({"mounts": results})
        return
    if not results:
        print_line("no mvcfs mounts on this host")
    for index, result in enumerate(results):
        if index:
            print_line("")
        if "error" in result:
            print_error(f"{result['mountpoint']}: {result['error']}")
        else:
            _show(result)


def _show(result: Mapping[str, Any]) -> None:
    where = result.get("mountpoint")
    head = f"{result.get('store')} on {where}" if where else str(result.get("store"))
    print_line(f"{head}: {result.get('state') or 'ok'}", style="bold")
    shows = _shows(result.get("shows") or {})
    if shows:
        print_line(shows)
    if result.get("store_error"):
        print_line(f"error{_since(result.get('store_error_since_s'))}: {result['store_error']}")
    staging = result.get("staging") or {}
    if staging.get("overlay_error"):
        print_line(f"error: {staging['overlay_error']}")
    if staging.get("waiting_writers"):
        print_line(
            f"{staging['waiting_writers']} writers wait for room: the staging bound or the local disk is reached"
        )
    if staging.get("used_bytes"):
        print_line(
            f"not in the store yet: {format_size(staging['used_bytes'])} of {format_size(staging['limit_bytes'])}"
        )
    models = result.get("models") or ()
    if models:
        print_table(("branch", "version", "changed", "open", "ignored", "oldest change", ""), [_row(m) for m in models])
    _show_oldest(models)
    for conflict in result.get("conflicts") or ():
        print_line(f"conflict: {conflict['model']}/{conflict['branch']}: {conflict['resolve']}")
    for other in result.get("others") or ():
        print_line(
            f"also mounted: {other['model']} by {other['user']} on {other['host']}{_since(other['since_s'])}"
            + (f" ({', '.join(other['branches'])})" if other["branches"] else "")
        )


def _show_oldest(models: Sequence[Mapping[str, Any]]) -> None:
    """Says which write waits longest for a version."""
    waiting = [model for model in models if model.get("oldest_unpublished_s")]
    if waiting:
        oldest = max(waiting, key=lambda model: float(model["oldest_unpublished_s"]))
        age = format_duration(oldest["oldest_unpublished_s"])
        print_line(f"oldest unpublished write: {age} ago, in {oldest['model']}/{oldest['branch']}")


def _shows(shows: Mapping[str, Any]) -> str:
    """What the mount shows, where that isn't the whole store to be written: `shows llama v1.0 (3f2a91c…), read-only`."""
    part = " ".join(filter(None, (shows.get("model"), shows.get("branch") or shows.get("revision"))))
    if shows.get("revision"):
        part += f" ({str(shows['commit'])[:10]}), for good"
    words = [f"shows {part}"] if part else []
    return ", ".join([*words, "read-only"] if shows.get("read_only") else words)


def _since(when_s: float | None) -> str:
    if when_s is None:
        return ""
    return time.strftime(" since %Y-%m-%d %H:%M:%S UTC", time.gmtime(when_s))


def _row(model: Mapping[str, Any]) -> tuple[str, ...]:
    changed = model.get("changed_files") or 0
    oldest = model.get("oldest_unpublished_s")
    notes = [f"conflict: see branch {model['conflict_branch']}"] if model.get("conflict_branch") else []
    if model.get("deleted"):
        notes.append("deleted elsewhere")
    if model.get("protected"):
        notes.append("protected: the changes wait, see mvcfs commit --help" if changed else "protected")
    if model.get("waits_for"):
        notes.append(f"{model['waits_for']} was changed elsewhere too: others' versions show once it is published")
    if model.get("last_error"):
        notes.append(f"error{_since(model.get('error_since_s'))}: {model['last_error']}")
    return (
        f"{model['model']}/{model['branch']}",
        str(model.get("version") or 0),
        f"{changed} ({format_size(model.get('changed_bytes') or 0)})" if changed else "0",
        str(model.get("open_files") or 0),
        str(model.get("ignored_files") or 0),
        format_duration(oldest) if oldest else "",
        "; ".join(notes),
    )
