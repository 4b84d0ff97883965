"""Bad input before anything is mounted: one line that names the thing and what to do, its exit code, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.harness import MVCFS, Mount, mvcfs
from tests.rough.tools import Took, User, fails, mounted, refused, refusing_port, silent_port

pytestmark = pytest.mark.mount


@pytest.fixture
def point(tmp_path: Path) -> Path:
    path = tmp_path / "point"
    path.mkdir()
    return path


def mount_words(store: str | Path, point: Path, *more: str) -> list[str | Path]:
    return ["mount", store, point, "--cache-dir", point.with_name("point-cache"), *more]


def every_command(store: str | Path, point: Path) -> list[list[str | Path]]:
    """Each command that must open a store."""
    words: list[list[str | Path]] = [
        mount_words(store, point),
        ["fsck", store],
        ["log", "--store", store, "m/main"],
        ["branch", "--store", store, "m", "new"],
        ["undelete", "--store", store, "m"],
    ]
    return words


# -- stores ---------------------------------------------------------------------------------------------------------


def test_no_store(point: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for words in every_command(nowhere, point):
        fails(3, str(nowhere), "mvcfs init", words=words)
    assert not nowhere.exists()
    assert not mounted(point)


@pytest.mark.parametrize(
    ("mark", "code", "says"),
    [
        (None, 3, "mvcfs init"),
        (b"\0\xff garbage", 5, "mvcfs.json"),
        (b"", 5, "mvcfs.json"),
        (b"[]", 5, "mvcfs.json"),
        (b'"mvcfs"', 5, "mvcfs.json"),
        (b'{"name": "somebody else\'s"}', 5, "mvcfs.json"),
        (b'{"mvcfs": "1", "id": "x", "features": []}', 5, "mvcfs.json"),
        (b'{"mvcfs": 1, "id": "../../etc", "features": []}', 5, "mvcfs.json"),
        (b'{"mvcfs": 1, "id": 7, "features": {}}', 5, "mvcfs.json"),
        (b"[" * 100_000, 5, "mvcfs.json"),
        (b"x" * (3 << 20), 5, "mvcfs.json"),
    ],
)
def test_a_folder_of_something_else(point: Path, tmp_path: Path, mark: bytes | None, code: int, says: str) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("not yours")
    if mark is not None:
        (foreign / "mvcfs.json").write_bytes(mark)
    before = {path: path.read_bytes() for path in foreign.iterdir()}
    fails(code, str(foreign), says, words=mount_words(foreign, point))
    fails(code, str(foreign), says, words=["fsck", foreign])
    assert {path: path.read_bytes() for path in foreign.iterdir()} == before
    assert not mounted(point)


@pytest.mark.parametrize(("change", "says"), [({"mvcfs": 99}, "format 99"), ({"features": ["holograms"]}, "holograms")])
def test_a_store_of_a_newer_mvcfs(store: str, point: Path, change: dict[str, object], says: str) -> None:
    mark = Path(store) / "mvcfs.json"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | change))
    for words in every_command(store, point):
        fails(12, store, says, "newer mvcfs", words=words)
    assert not mounted(point)


def test_an_address_of_no_kind(point: Path) -> None:
    for store in ("s3://bucket/x", "hdfs://", "hdfs:/x", "file://elsewhere/x", "hdfs://host:99999/x", ""):
        fails(2, "file:///path", words=mount_words(store, point))


def test_init_of_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    line = fails(3, str(tmp_path / "file"), words=["init", tmp_path / "file" / "store"])
    assert "Errno" not in line


# -- networks -------------------------------------------------------------------------------------------------------


def test_a_wrong_host(point: Path) -> None:
    with Took() as took:
        fails(7, "no-such-host.invalid", words=mount_words("hdfs://no-such-host.invalid:8020/x", point))
    assert took.seconds < 60
    assert not mounted(point)


def test_a_port_that_refuses(point: Path) -> None:
    port = refusing_port()
    with Took() as took:
        fails(7, f"127.0.0.1:{port}", words=mount_words(f"hdfs://127.0.0.1:{port}/x", point))
    assert took.seconds < 60


def test_a_namenode_that_never_answers(point: Path) -> None:
    with silent_port() as port, Took() as took:
        words = mount_words(f"hdfs://127.0.0.1:{port}/x", point, "--metadata-timeout", "2s")
        fails(7, f"127.0.0.1:{port}", "no answer", "2 s", words=words)
    assert took.seconds < 60
    assert not mounted(point)


def test_init_and_commands_on_a_namenode_that_never_answers(tmp_path: Path) -> None:
    with silent_port() as port:
        store = f"hdfs://127.0.0.1:{port}/x"
        fails(7, "no answer", words=["init", store, "--metadata-timeout", "1s"])
        fails(7, "no answer", words=["log", "--store", store, "m/main", "--metadata-timeout", "1s"])
        done = mvcfs("doctor", store, "--metadata-timeout", "1s", check=False)
    assert done.returncode == 1
    assert "no answer" in done.stdout
    assert done.stderr == ""


# -- permission -----------------------------------------------------------------------------------------------------


def test_a_store_that_may_not_be_read(users: tuple[User, User], reachable: Path) -> None:
    one, _ = users
    store = reachable / "store"
    mvcfs("init", store)
    os.chmod(store, 0o700)
    refused(8, str(store), done=one.mvcfs("mount", store, one.home / "mnt", check=False))
    refused(8, str(store), done=one.mvcfs("log", "--store", store, "m/main", check=False))
    refused(8, str(reachable / "new"), done=one.mvcfs("init", reachable / "new", check=False))
    assert not mounted(one.home / "mnt")


def test_a_store_that_may_not_be_written(users: tuple[User, User], reachable: Path) -> None:
    one, _ = users
    store = reachable / "store"
    mvcfs("init", store)
    root = Mount(str(store), reachable).start()
    try:
        (root.point / "m").mkdir()
        (root.point / "m" / "main" / "a").write_text("a")
        (root.point / "m" / "main").chmod(0o777)
        root.umount()
    finally:
        root.close()
    for path in (store, *store.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    point = one.home / "mnt"
    one.mvcfs("mount", store, point, "--settle", "0.2", "--refresh", "0.2")
    assert one.run("cat", point / "m/main/a").stdout == "a"
    said = one.run("mkdir", point / "new", check=False)
    assert said.returncode == 1
    assert "ermi" in said.stderr or "ermission" in said.stderr
    one.run("sh", "-c", f"echo mine > {point}/m/main/b")
    line = refused(8, str(store), done=one.mvcfs("commit", point / "m/main", "-m", "x", check=False))
    assert "ermission" in line or "permitted" in line
    assert "error" in one.mvcfs("status", point).stdout
    assert one.run("cat", point / "m/main/b").stdout == "mine\n"
    done = one.mvcfs("umount", point, "--drain-timeout", "1s", check=False)
    assert done.returncode == 6
    assert "wait in the overlay" in done.stderr


@pytest.mark.hdfs
def test_a_store_of_another_user_on_hdfs(hdfs_url: str, point: Path) -> None:
    store = f"{hdfs_url}/store"
    mvcfs("init", store)
    somebody = os.environ | {"HADOOP_USER_NAME": "somebody"}
    fails(8, f"{hdfs_url}/other", "ermission denied", words=["init", f"{hdfs_url}/other"], env=somebody)
    mount = Mount(store, point.parent, "--settle", "1h", "--max-settle", "2h")
    mvcfs("mount", store, mount.point, "--cache-dir", mount.cache, env=somebody)
    try:
        with pytest.raises(PermissionError):
            (mount.point / "m").mkdir()
        assert os.listdir(mount.point) == []
        mount.umount()
    finally:
        mount.close()


# -- FUSE and mount points ------------------------------------------------------------------------------------------


def test_no_fuse_device(store: str, point: Path, tmp_path: Path) -> None:
    """In a mount namespace whose /dev has none."""
    if os.geteuid() != 0:
        pytest.skip("makes a mount namespace")
    dev = tmp_path / "dev"
    dev.mkdir()
    script = f'mount -t tmpfs none {dev} && touch {dev}/null && mount --bind /dev/null {dev}/null && mount --rbind {dev} /dev && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", script, "sh", MVCFS, *mount_words(store, point)]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, check=False)
    refused(3, "/dev/fuse", "modprobe fuse", done=done)


@pytest.mark.parametrize(
    ("make", "code", "says"),
    [
        (lambda path: (path / "precious").write_text("x"), 9, "isn't empty"),
        (lambda path: path.rmdir(), 3, "mkdir -p"),
        (lambda path: (path.rmdir(), path.write_text("x")), 1, "no directory"),
        (lambda path: (path.rmdir(), path.symlink_to("nowhere")), 3, "doesn't exist"),
    ],
)
def test_a_mount_point_that_will_not_do(
    store: str, point: Path, make: Callable[[Path], object], code: int, says: str
) -> None:
    make(point)
    fails(code, str(point), says, words=mount_words(store, point))
    assert not mounted(point)


def test_a_mount_point_that_is_not_the_users(users: tuple[User, User], reachable: Path) -> None:
    one, _ = users
    store = one.home / "store"
    one.mvcfs("init", store)
    (reachable / "roots").mkdir()
    line = refused(8, str(reachable / "roots"), done=one.mvcfs("mount", store, reachable / "roots", check=False))
    assert "fusermount3" in line


def test_a_cache_folder_that_will_not_do(store: str, point: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_text("x")
    for name in ("link", "file"):
        fails(8, str(tmp_path / name), words=["mount", store, point, "--cache-dir", tmp_path / name])


# -- names ----------------------------------------------------------------------------------------------------------


def test_bad_names(mnt: Mount) -> None:
    root = mnt.point
    (root / "m/main/a").write_text("a")
    mnt.commit()
    for name in ("a@b", "x~1", ".hidden"):
        with pytest.raises(OSError, match="Invalid argument"):
            (root / name).mkdir()
        with pytest.raises(OSError, match="Invalid argument"):
            (root / "m" / name).mkdir()
        fails(2, name, words=["branch", root / "m", name])
        fails(2, name, words=["tag", root / "m", name, "main@1"])
    with pytest.raises(OSError, match="too long"):
        (root / ("x" * 256)).mkdir()
    fails(2, "main@x@y", words=["tag", root / "m", "t", "main@x@y"])
    fails(3, "main@7", words=["tag", root / "m", "t", "main@7"])
    fails(3, "nope", words=["branch", root / "m", "b", "--from", "nope"])
    fails(3, "nope", words=["branch", root / "nope", "b"])
    fails(3, "nope", words=["log", root / "m/nope"])
    fails(3, "7", words=["info", root / "m/main@7/a"])
    fails(3, "gone", words=["info", root / "m/main/gone"])
    fails(9, "main", words=["branch", root / "m", "main"])
    fails(3, "nope", words=["branch", root / "m", "nope", "--delete"])
    fails(3, "nope", words=["tag", root / "m", "nope", "--delete"])
    fails(3, "nope", words=["undelete", root / "nope"])
    assert [each["branch"] for each in json.loads(mvcfs("branch", root / "m", "--json").stdout)["branches"]] == ["main"]


def test_a_commit_without_a_message(mnt: Mount, main: Path) -> None:
    (main / "a").write_text("a")
    for message in ("", "   ", "\n"):
        fails(2, "message", words=["commit", main, "-m", message])
    fails(2, words=["commit", main])


def test_paths_outside_of_any_mount(store: str, tmp_path: Path) -> None:
    for words in (["log", tmp_path], ["info", "/"], ["status", tmp_path], ["commit", tmp_path, "-m", "x"]):
        fails(3, "no mvcfs mount", words=words)
    fails(3, str(tmp_path), words=["umount", tmp_path])
    fails(2, "leads out", words=["log", "--store", store, "m/../../x"])
    fails(3, "nope", words=["log", "--store", store, "nope/main"])
    fails(2, "--store", words=["commit", "--store", store, "m/main", "-m", "x"])


def test_two_mounts_of_one_overlay(mnt: Mount, tmp_path: Path, point: Path) -> None:
    fails(11, "in use", "--cache-dir", words=["mount", mnt.store, point, "--cache-dir", mnt.cache])
    assert not mounted(point)
    fails(11, "mounted on", "umount", words=["mount", mnt.store, mnt.point, "--cache-dir", tmp_path / "other"])
    (mnt.point / "m/main/a").write_text("still there")
    assert (mnt.point / "m/main/a").read_text() == "still there"
