"""Mounts that share a branch at once (`-o shared`), as docs/semantics.md states it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mount.harness import Mount, wait_until

LARGE = 2_000_000
# Whatever shows before that was not brought by the refresh.
NEVER = ("-o", "shared", "--refresh", "1h")
BY_HAND = ("--settle", "1h", "--max-settle", "1h")


@pytest.fixture
def pair(store: str, mounts: Callable[..., Mount]) -> tuple[Mount, Mount]:
    """Two shared mounts with a model; versions are made by hand."""
    made = mounts(store, *NEVER).start(*BY_HAND), mounts(store, *NEVER).start(*BY_HAND)
    (made[0].point / "m").mkdir()
    return made


def mains(pair: tuple[Mount, Mount]) -> tuple[Path, Path]:
    return pair[0].point / "m/main", pair[1].point / "m/main"


def test_close_to_open(pair: tuple[Mount, Mount]) -> None:
    """With `-o shared` an open sees what was closed on another shared mount before, whatever `--refresh` says."""
    ours, theirs = mains(pair)
    for size in (10, LARGE):
        data = os.urandom(size)
        (ours / "f").write_bytes(data)
        assert (theirs / "f").read_bytes() == data
        (theirs / "f").write_bytes(data[::-1])
        assert (ours / "f").read_bytes() == data[::-1]
        assert (ours / "f").stat().st_size == size


def test_names(pair: tuple[Mount, Mount]) -> None:
    """New directories, links, renames, removals and changed attributes are on the other shared mounts when the call returns."""
    ours, theirs = mains(pair)
    (ours / "d").mkdir()
    (ours / "d/f").write_text("1")
    os.symlink("f", ours / "d/s")
    os.link(ours / "d/f", ours / "d/l")
    assert sorted(os.listdir(theirs / "d")) == ["f", "l", "s"]
    assert (theirs / "d/l").stat().st_ino == (theirs / "d/f").stat().st_ino
    assert os.readlink(theirs / "d/s") == "f"
    os.chmod(theirs / "d/f", 0o600)
    os.utime(theirs / "d/f", ns=(5, 1_000_000_007))
    assert (ours / "d/f").stat().st_mode & 0o777 == 0o600
    assert (ours / "d/f").stat().st_mtime_ns == 1_000_000_007
    os.rename(ours / "d", ours / "e")
    assert os.listdir(theirs) == ["e"]
    os.unlink(theirs / "e/s")
    assert sorted(os.listdir(ours / "e")) == ["f", "l"]


def test_ignored(pair: tuple[Mount, Mount]) -> None:
    """Ignored names are shared, too, and still in no version."""
    ours, theirs = mains(pair)
    (ours / "tmp-checkpoint-1").mkdir()
    (theirs / "tmp-checkpoint-1/a").write_text("1")
    (ours / "tmp-checkpoint-1/b").write_text("2")
    (theirs / "kept").write_text("3")
    assert sorted(os.listdir(theirs / "tmp-checkpoint-1")) == ["a", "b"]
    made = pair[0].commit()
    assert os.listdir(pair[1].snapshot(made["version"])) == ["kept"]


def test_checkpoint(store: str, mounts: Callable[..., Mount]) -> None:
    """A temporary directory that all shared mounts fill and one of them renames is one version, whole."""
    made = [mounts(store, "-o", "shared").start() for _ in range(3)]
    (made[0].point / "m").mkdir()
    for rank, mount in enumerate(made):
        directory = mount.point / "m/main/tmp-checkpoint-1"
        directory.mkdir(exist_ok=True)
        for number in range(3):
            (directory / f"shard-{rank}-{number}").write_bytes(bytes([rank]) * 300_000)
    os.rename(made[2].point / "m/main/tmp-checkpoint-1", made[2].point / "m/main/checkpoint-1")
    versions = made[0].settled(1)
    shown = made[1].snapshot(versions[0]["version"]) / "checkpoint-1"
    assert len(os.listdir(shown)) == 9
    assert (shown / "shard-2-0").read_bytes() == bytes([2]) * 300_000


def test_locks(pair: tuple[Mount, Mount]) -> None:
    """Of several shared mounts that make a directory, or a file with O_EXCL, or take a name away, one succeeds: a lock."""
    places = mains(pair)

    def taken(act: Callable[[Path], object]) -> int:
        def tried(place: Path) -> bool:
            try:
                act(place)
            except (FileExistsError, FileNotFoundError):
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(tried, places))

    for number in range(5):
        assert taken(lambda place, number=number: os.mkdir(place / f"d{number}")) == 1
        assert taken(lambda place, number=number: open(place / f"f{number}", "x").close()) == 1
        assert (
            taken(
                lambda place, number=number: os.rename(
                    place / f"f{number}", place / f"got-{number}-{place.parents[1].name}"
                )
            )
            == 1
        )
        assert taken(lambda place, number=number: os.rmdir(place / f"d{number}")) == 1


def test_later_close(pair: tuple[Mount, Mount]) -> None:
    """Of two shared mounts that write one file the later close stands, as on one disk, and there is no conflict branch."""
    ours, theirs = mains(pair)
    with open(ours / "f", "w") as first, open(theirs / "f", "w") as second:
        second.write("earlier")
        second.close()
        first.write("later")
    assert (theirs / "f").read_text() == (ours / "f").read_text() == "later"
    assert pair[1].commit()["conflict"] is False
    assert os.listdir(pair[0].point / "m") == ["main"]


def test_open_elsewhere(pair: tuple[Mount, Mount]) -> None:
    """What is open keeps what it was opened with, and what is being written is seen elsewhere when it is closed."""
    ours, theirs = mains(pair)
    (ours / "f").write_text("1")
    with open(theirs / "f") as held:
        with open(ours / "f", "w") as file:
            file.write("2")
            file.flush()
            assert (theirs / "f").read_text() == "1"
        assert (theirs / "f").read_text() == "2"
        assert held.read() == "1"


def test_one_version(pair: tuple[Mount, Mount]) -> None:
    """`mvcfs commit` on one shared mount makes a version of what all have closed; each shows it."""
    ours, theirs = mains(pair)
    (ours / "a").write_text("1")
    (theirs / "b").write_text("2")
    made = pair[0].commit()
    assert sorted(os.listdir(pair[0].snapshot(made["version"]))) == ["a", "b"]
    assert sorted(os.listdir(pair[1].snapshot(made["version"]))) == ["a", "b"]
    assert len(pair[1].versions()) == 1


def test_not_shared(store: str, mounts: Callable[..., Mount]) -> None:
    """A mount without `-o shared` sees the shared ones' versions alone, and its own come into their trees within `--refresh`."""
    shared = [mounts(store, "-o", "shared").start(*BY_HAND) for _ in range(2)]
    (shared[0].point / "m").mkdir()
    ours, theirs = (mount.point / "m/main" for mount in shared)
    plain = mounts(store).start()
    (ours / "a").write_text("1")
    shared[0].commit()
    wait_until("the version shows", lambda: os.listdir(plain.point / "m/main") == ["a"])
    (ours / "b").write_text("2")
    (plain.point / "m/main/c").write_text("3")
    plain.commit()
    assert sorted(os.listdir(plain.point / "m/main")) == ["a", "c"]
    wait_until("its version shows", lambda: sorted(os.listdir(theirs)) == ["a", "b", "c"])


def test_killed(pair: tuple[Mount, Mount]) -> None:
    """What a call on a shared mount returned for is on the others, also when its host dies at once."""
    ours, theirs = mains(pair)
    (ours / "d").mkdir()
    (ours / "d/f").write_bytes(b"x" * LARGE)
    pair[0].kill()
    assert (theirs / "d/f").read_bytes() == b"x" * LARGE
    assert pair[1].commit()["version"] == 1


def test_renamed_model(pair: tuple[Mount, Mount]) -> None:
    """A model that is renamed on another mount goes on for who stands in it on a shared mount, at once."""
    ours, theirs = mains(pair)
    (ours / "f").write_text("1")
    assert (theirs / "f").read_text() == "1"
    directory = os.open(theirs, os.O_RDONLY)
    try:
        os.rename(pair[0].point / "m", pair[0].point / "n")
        with open("g", "w", opener=lambda name, flags: os.open(name, flags, 0o644, dir_fd=directory)) as file:
            file.write("2")
    finally:
        os.close(directory)
    assert (pair[0].point / "n/main/g").read_text() == "2"
    assert (pair[1].point / "n/main/f").read_text() == "1"


def test_store_away(store: str, mounts: Callable[..., Mount]) -> None:
    """While the store is away open and close fail with EIO on a shared mount; what was written is seen elsewhere once the store is back."""
    made = [mounts(store, "-o", "shared").start(*BY_HAND) for _ in range(2)]
    (made[0].point / "m").mkdir()
    ours, theirs = (mount.point / "m/main" for mount in made)
    (ours / "f").write_text("1")
    file = open(ours / "g", "w")
    file.write("2")
    file.flush()
    os.rename(store, f"{store}-away")
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            file.close()
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            (theirs / "f").read_text()
    finally:
        os.rename(f"{store}-away", store)
    wait_until("it is seen", lambda: (theirs / "g").exists() and (theirs / "g").read_text() == "2")
    assert (theirs / "f").read_text() == "1"
