"""What happens to a working tree while a commit of it is on its way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from mvcfs.cli.localstate import runtime_dir
from mvcfs.fuse.control_client import call
from mvcfs.fuse.runtime import socket_path
from tests.e2e.tools import differences
from tests.mount.harness import Mount, mvcfs, wait_until

pytestmark = pytest.mark.mount


@pytest.fixture
def mnt(store: str, patient: Callable[[str], Mount]) -> Mount:
    mount = patient(store)
    (mount.point / "m").mkdir()
    return mount


@pytest.mark.parametrize("again", ["commit", "remount"])
def test_changes_meanwhile_are_kept(mnt: Mount, again: str) -> None:
    main = mnt.point / "m" / "main"
    (main / "bulk").write_bytes(os.urandom(400_000_000))
    for name in ("removed", "moved", "replaced", "other", "written", "old-dir/deep/a", "old-dir/b", "moved-dir/c"):
        (main / name).parent.mkdir(parents=True, exist_ok=True)
        (main / name).write_text(f"{name} before")
    made: list[dict[str, object]] = []
    thread = threading.Thread(target=lambda: made.append(mnt.commit()))
    thread.start()
    # Asked by the socket: a command takes as long to start as a commit takes.
    socket = socket_path(runtime_dir(), os.path.realpath(mnt.point))

    def step() -> str:
        return str(call(socket, "status", {"mount_path": "m/main"})["models"][0]["commit"]["step"])

    wait_until("the commit is under way", lambda: made or step() != "idle")
    os.unlink(main / "removed")
    os.rename(main / "moved", main / "moved-too")
    os.rename(main / "other", main / "replaced")
    (main / "written").write_text("written after")
    (main / "new").write_text("new")
    os.unlink(main / "old-dir/deep/a")
    os.rmdir(main / "old-dir/deep")
    os.rename(main / "moved-dir", main / "moved-dir-too")
    os.unlink(main / "moved-dir-too/c")
    assert made == [], "too late: the commit was over"
    thread.join()
    now = sorted(str(path.relative_to(main)) for path in main.rglob("*"))
    expected = ["bulk", "moved-dir-too", "moved-too", "new", "old-dir", "old-dir/b", "replaced", "written"]
    assert now == expected
    then = sorted(path.name for path in mnt.snapshot(1).iterdir())
    assert then == ["bulk", "moved", "moved-dir", "old-dir", "other", "removed", "replaced", "written"]
    if again == "remount":
        mnt.kill()
        mnt.start("--settle", "1h", "--max-settle", "1h")
        assert sorted(str(path.relative_to(main)) for path in main.rglob("*")) == expected
    assert (main / "replaced").read_text() == "other before"
    mvcfs("commit", main, "-m", "again")
    assert sorted(str(path.relative_to(main)) for path in main.rglob("*")) == expected
    assert differences(main, mnt.snapshot(2)) == ""
    assert mnt.fsck()["problems"] == []
