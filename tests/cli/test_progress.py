"""How far a command without a mount is, as the command line hears it."""

from __future__ import annotations

import trio

from mvcfs.cli import direct, dispatch
from mvcfs.cli.options import StoreOptions
from mvcfs.cli.place import Place
from mvcfs.vfs.command_progress import command_progress
from mvcfs.vfs.engine import Engine


def test_a_command_on_a_store_reports(mvcfs, tmp_path, monkeypatch):
    assert mvcfs("init", str(tmp_path / "store"))[0] == 0
    monkeypatch.setattr(direct, "PROGRESS_INTERVAL_S", 0.01)
    heard = []

    async def work(args):
        progress = command_progress()
        progress.start("working", total=2)
        progress.add(things=1)
        progress.item = "x"
        with trio.fail_after(20):
            while not heard:  # noqa: ASYNC110 - who hears is no task
                await trio.sleep(0.01)
        return {"done": True}

    monkeypatch.setattr(Engine, "commands", {"work": work})
    place = Place("", store=str(tmp_path / "store"))
    result = dispatch.call(place, "work", {}, StoreOptions(cache_dir=tmp_path / "cache"), on_progress=heard.append)
    assert result == {"done": True}
    assert heard[0] == {"step": "working", "done": 1, "total": 2, "item": "x"}
    assert command_progress().report() == {}
