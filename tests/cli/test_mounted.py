"""The commands on a real mount of a real store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.mount.harness import MVCFS, mvcfs, run, wait_until

pytestmark = pytest.mark.mount


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("MVCFS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MVCFS_SETTLE", "1h")
    monkeypatch.setenv("MVCFS_MAX_SETTLE", "2h")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mounted(settings, tmp_path):
    """A store mounted where nothing becomes a version by itself."""
    mvcfs("init", "store")
    (tmp_path / "mnt").mkdir()
    mvcfs("mount", "store", "mnt")
    (tmp_path / "mnt" / "m").mkdir()
    yield tmp_path / "mnt"
    os.chdir("/")
    if os.path.ismount(tmp_path / "mnt"):
        mvcfs("umount", "--force", tmp_path / "mnt", check=False)


def js(*words):
    return json.loads(mvcfs(*words, "--json").stdout)


def test_the_keys_of_the_page_are_those_of_the_commands(mounted):
    (mounted / "m/main/a").write_text("a")
    done = js("commit", "mnt/m/main", "-m", "First")
    assert {"version", "commit", "branch", "unchanged", "conflict"} <= set(done)
    assert (done["version"], done["branch"]) == (1, "main")
    (version,) = js("log", "mnt/m/main")["versions"]
    assert {"version", "commit", "time_ns", "author", "email", "message", "tags"} <= set(version)
    assert version["message"].splitlines()[0] == "First"
    info = js("info", "mnt/m/main@1/a")
    assert (info["state"], info["size_bytes"], info["version"]) == ("snapshot", 1, 1)
    status = js("status", "mnt")
    assert status["mountpoint"] == str(mounted)
    assert {"store", "state", "models", "staging", "cache", "memory"} <= set(status)
    assert [each["mountpoint"] for each in js("status")["mounts"]].count(str(mounted)) == 1
    assert {"problems", "counts"} <= set(js("fsck", "mnt"))


def test_branches_and_tags(mounted):
    (mounted / "m/main/a").write_text("a")
    mvcfs("commit", "mnt/m", "-m", "x", check=False)
    mvcfs("commit", "mnt/m/main", "-m", "First")
    mvcfs("branch", "mnt/m", "exp", "--from", "main@1")
    assert (mounted / "m/exp/a").read_text() == "a"
    mvcfs("tag", "mnt/m", "v1", "main@1", "-m", "The first")
    assert (mounted / "m/v1/a").read_text() == "a"
    assert [each["tag"] for each in js("tag", "mnt/m")["tags"]] == ["v1"]
    assert mvcfs("branch", "mnt/m", "exp", check=False).returncode == 9
    mvcfs("branch", "mnt/m", "exp", "--delete")
    assert js("branch", "mnt/m")["deleted"] == ["exp"]
    mvcfs("branch", "mnt/m", "exp", "--undelete")
    assert {each["branch"] for each in js("branch", "mnt/m")["branches"]} == {"main", "exp"}
    mvcfs("tag", "mnt/m", "v1", "--delete")
    assert js("tag", "mnt/m")["tags"] == []
    assert mvcfs("tag", "mnt/m", "v1", "main@99", check=False).returncode == 3


def test_the_same_answers_without_a_mount(mounted):
    (mounted / "m/main/a").write_text("a")
    mvcfs("commit", "mnt/m/main", "-m", "First")
    assert js("log", "--store", "store", "m/main") == js("log", "mnt/m/main")
    assert js("info", "--store", "store", "m/main@1/a") == js("info", "mnt/m/main@1/a")
    assert mvcfs("fsck", "store", "--data").stdout.endswith("no problems\n")


def test_names_of_versions_are_the_same_without_a_mount(mounted):
    (mounted / "m/main/a").write_text("a")
    mvcfs("commit", "mnt/m/main", "-m", "First")
    direct = ("--store", "store", "m")
    mvcfs("branch", *direct, "exp", "--from", "main@1")
    mvcfs("branch", *direct, "exp", "--rename", "try")
    mvcfs("branch", *direct, "try", "--protect")
    mvcfs("alias", *direct, "best", "try", "-m", "Why", "--author", "Ada <ada@example.org>")
    mvcfs("tag", *direct, "v1", "best", "-m", "Good")
    wait_until("the mount has it", lambda: (mounted / "m/v1/a").exists())
    for words in (("branch",), ("tag",), ("alias",), ("log", "--alias", "best")):
        here, there = js(*words, "mnt/m"), js(*words, *direct)
        for row in (*here.get("branches", ()), *there.get("branches", ())):
            assert row.pop("age_s") >= 0
        assert here == there
    (alias,) = js("alias", "mnt/m")["aliases"]
    # Both branches have this version; the one that was named is told.
    assert (alias["alias"], alias["branch"], alias["version"], alias["who"]) == ("best", "try", 1, "Ada")
    (tag,) = js("tag", "mnt/m")["tags"]
    assert (tag["message"], tag["annotated"], tag["version"], tag["commit"]) == ("Good\n", True, 1, alias["commit"])
    rows = {row["branch"]: row["protected"] for row in js("branch", "mnt/m")["branches"]}
    assert rows == {"main": False, "try": True}
    mvcfs("alias", *direct, "best", "--delete")
    wait_until("the mount lost it", lambda: not (mounted / "m/best").exists())
    assert js("alias", "mnt/m") == {"model": "m", "aliases": [], "removed": ["best"]}


def test_umount_makes_a_version_of_what_is_left(mounted, tmp_path):
    (mounted / "m/main/a").write_text("a")
    (mounted / "m/main/b.tmp").write_text("b")
    done = js("umount", "mnt")
    assert done["clean"] is True
    assert done["left"]["ignored_files"] == 1
    assert not os.path.ismount(mounted)
    assert len(js("log", "--store", "store", "m/main")["versions"]) == 1


def test_umount_without_its_store_says_what_is_left_and_the_next_mount_has_it(mounted, tmp_path):
    (mounted / "m/main/a").write_text("a")
    os.rename("store", "away")
    Path("store").touch()
    done = mvcfs("umount", "mnt", "--drain-timeout", "1s", check=False)
    assert done.returncode == 6
    assert "1 files (1 B) wait in the overlay" in done.stderr
    os.unlink("store")
    os.rename("away", "store")
    mvcfs("mount", "store", "mnt")
    assert (mounted / "m/main/a").read_text() == "a"
    assert js("umount", "mnt")["clean"] is True
    assert len(js("log", "--store", "store", "m/main")["versions"]) == 1


def test_umount_of_a_dead_mount_takes_it_off_and_says_so(mounted):
    pid = int(js("status", "mnt").get("pid") or daemon_pid(mounted))
    os.kill(pid, signal.SIGKILL)
    wait_until("the daemon is gone", lambda: not Path(f"/proc/{pid}").exists())
    done = mvcfs("umount", "mnt", check=False)
    assert done.returncode == 6
    assert "its daemon was gone" in done.stderr
    assert not os.path.ismount(mounted)


def daemon_pid(mounted: Path) -> int:
    from mvcfs.cli.dispatch import call
    from mvcfs.cli.options import StoreOptions
    from mvcfs.cli.place import locate

    return int(call(locate(str(mounted), None), "ping", {}, StoreOptions())["pid"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder with a mounted store and things that can't be mounted on, for tests that change nothing."""
    folder = tmp_path_factory.mktemp("shared")
    here = {"cwd": folder, "env": os.environ | {"MVCFS_CACHE_DIR": str(folder / "cache")}}
    mvcfs("init", "store", **here)
    for name in ("mnt", "other", "full"):
        (folder / name).mkdir()
    (folder / "full" / "x").touch()
    (folder / "file").touch()
    mvcfs("mount", "store", "mnt", **here)
    (folder / "mnt" / "m").mkdir()
    yield here
    mvcfs("umount", "mnt", **here)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["mount", "nostore", "other"], 3, "mvcfs init"),
        (["mount", "store", "nowhere"], 3, "nowhere"),
        (["mount", "store", "full"], 9, "empty"),
        (["mount", "store", "file"], 1, "director"),
        (["mount", "store", "mnt"], 11, "mounted"),
        (["mount", "store", "other"], 11, "in use"),
        (["mount", "s3://x/y", "other"], 2, "hdfs://"),
        (["mount", "hdfs://localhost:1/x", "other", "--metadata-timeout", "3s"], 7, ""),
        (["init", "store"], 9, "already"),
        (["log", "mnt/nope/main"], 3, "nope"),
        (["log", "mnt/m/nope"], 3, "nope"),
        (["log", "mnt/m"], 2, "main"),
        (["info", "mnt/m/main@99"], 3, "99"),
        (["branch", "mnt/m", "a@b"], 2, "a@b"),
        (["umount", "other"], 3, "other"),
    ],
)
def test_what_goes_wrong_is_one_line_with_its_code(shared, arguments, code, says):
    done = mvcfs(*arguments, check=False, **shared)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("mvcfs: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


MOUNT_8 = """
set -e
mkdir -p mnt
mount -T fstab "$PWD/mnt"
test -d mnt/m || mkdir mnt/m
ls -a mnt/m
mvcfs umount mnt
mount -t fuse.mvcfs "$PWD/store" "$PWD/mnt" -o "$1"
ls -a mnt/m
mvcfs umount mnt
"""


@pytest.fixture
def as_installed(tmp_path):
    """How to run a shell that finds `mvcfs` where root's programs are, for mount(8) looks nowhere else.

    In a mount namespace of its own, so that the system doesn't change; in a chroot, which has none, by a link for a while.
    """
    programs = tmp_path / "sbin"
    programs.mkdir()
    (programs / "mvcfs").symlink_to(MVCFS)
    if run("unshare", "--mount", "true", check=False).returncode == 0:
        yield ["unshare", "--mount", "sh", "-c", f'mount --bind {programs} /usr/local/sbin && exec "$@"', "sh", "sh"]
        return
    link = Path("/usr/local/sbin/mvcfs")
    link.symlink_to(MVCFS)
    yield ["sh"]
    link.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="mount(8) of a file system that fstab doesn't have is root's")
def test_mount_8_and_a_line_of_fstab(settings, tmp_path, as_installed):
    mvcfs("init", "store")
    options = f"noauto,nofail,_netdev,noatime,show-history,cache-dir={tmp_path}/cache,settle=1h"
    Path("fstab").write_text(f"{tmp_path}/store {tmp_path}/mnt fuse.mvcfs {options} 0 0\n")
    variables = os.environ | {"PATH": f"{Path(MVCFS).parent}:{os.environ['PATH']}"}
    done = run(*as_installed, "-c", MOUNT_8, "sh", options, env=variables)
    assert done.stdout.split().count(".history") == 2


def test_in_the_foreground_until_a_signal(settings, tmp_path):
    mvcfs("init", "store")
    (tmp_path / "mnt").mkdir()
    with subprocess.Popen([MVCFS, "mount", "-f", "store", "mnt"], stderr=subprocess.PIPE, text=True) as daemon:
        wait_until("it is mounted", lambda: os.path.ismount("mnt"))
        (tmp_path / "mnt" / "m").mkdir()
        (tmp_path / "mnt" / "m" / "main" / "a").write_text("a")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(60) == 0
    assert len(js("log", "--store", "store", "m/main")["versions"]) == 1
