"""A store whose files are damaged: said where it matters, never handed out, found by fsck with the versions it touches."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.harness import Mount, mvcfs
from tests.rough.tools import fails

pytestmark = pytest.mark.mount

LARGE = 1 << 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a model with two versions: each has a pack with one large file, and small ones."""
    folder = tmp_path_factory.mktemp("whole")
    mvcfs("init", folder / "store")
    mount = Mount(str(folder / "store"), folder).start()
    try:
        (mount.point / "m").mkdir()
        main = mount.point / "m" / "main"
        for name in ("one", "two"):
            (main / name).write_bytes(os.urandom(LARGE))
            (main / f"{name}.txt").write_text(name)
            (main / f"{name}-small").mkdir()
            for number in range(30):
                (main / f"{name}-small" / str(number)).write_bytes(os.urandom(40_000))
            mount.commit()
        mount.umount()
    finally:
        mount.close()
    return folder / "store"


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> str:
    """A copy of it that a test may damage."""
    return str(shutil.copytree(whole, tmp_path / "store"))


@pytest.fixture
def model(store: str) -> Path:
    return Path(store) / "models" / "m"


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))


def pack_of(model: Path, version: int) -> Path:
    """The pack that a version brought."""
    packs = sorted((model / "packs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert len(packs) == 2
    return packs[version - 1]


def broken(store: Path, *words: str, data: bool = True) -> list[dict[str, object]]:
    """What fsck finds; it must find something, and nothing else than it must be wrong."""
    done = mvcfs("fsck", store, *(["--data"] if data else []), "--json", check=False)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "problem" in done.stderr
    problems = list(json.loads(done.stdout)["problems"])
    text = json.dumps(problems)
    for word in words:
        assert word in text, text
    return problems


def test_a_flipped_byte_in_a_pack(model: Path, store: str, mounts: Callable[..., Mount]) -> None:
    pack = pack_of(model, 1)
    flip(pack, LARGE // 2)
    mount = mounts(store).start()
    main = mount.point / "m" / "main"
    for path in (main / "one", mount.point / "m" / "main@1" / "one"):
        with pytest.raises(OSError, match="Input/output error"):
            path.read_bytes()
    assert len((main / "two").read_bytes()) == LARGE
    assert (main / "one.txt").read_text() == "one"
    log = mount.log_text()
    assert pack.name in log
    assert "m/main/one: " in log
    assert "Traceback" not in log
    (problem,) = broken(Path(store), pack.name, "one")
    versions = json.dumps(problem["versions"])
    assert "main@1:one" in versions
    assert "two" not in versions
    done = mvcfs("fsck", mount.point, "--data", check=False)
    assert done.returncode == 5
    assert pack.name in done.stdout
    assert "main@1:one" in done.stdout
    (main / "three").write_bytes(os.urandom(LARGE))
    mount.commit()
    assert len((main / "three").read_bytes()) == LARGE


def test_a_truncated_pack(model: Path, store: str, mounts: Callable[..., Mount]) -> None:
    pack = pack_of(model, 2)
    os.truncate(pack, LARGE // 2)
    broken(Path(store), pack.name, "main@2:two", data=False)
    mount = mounts(store).start()
    with pytest.raises(OSError, match="Input/output error"):
        (mount.point / "m/main/two").read_bytes()
    assert len((mount.point / "m/main/one").read_bytes()) == LARGE
    assert pack.name in mount.log_text()


def test_a_missing_pack(model: Path, store: str, mounts: Callable[..., Mount]) -> None:
    pack = pack_of(model, 2)
    pack.unlink()
    broken(Path(store), pack.name, "main@2:two", data=False)
    mount = mounts(store).start()
    with pytest.raises(OSError, match="Input/output error"):
        (mount.point / "m/main/two").read_bytes()
    assert len((mount.point / "m/main/one").read_bytes()) == LARGE


def test_a_missing_manifest(model: Path, store: str, mounts: Callable[..., Mount]) -> None:
    manifests = sorted((model / "manifests").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    manifests[1].unlink()
    broken(Path(store), manifests[1].name, "main@2:two", data=False)
    mount = mounts(store).start()
    with pytest.raises(OSError, match="Input/output error"):
        (mount.point / "m/main/two").read_bytes()
    assert len((mount.point / "m/main/one").read_bytes()) == LARGE
    assert (mount.point / "m/main/two.txt").read_text() == "two"
    assert manifests[1].name in mount.log_text()


def test_a_missing_git_pack(model: Path, store: str, mounts: Callable[..., Mount]) -> None:
    pack = min((model / "git").glob("*.pack"), key=lambda path: path.stat().st_mtime_ns)
    pack.unlink()
    broken(Path(store), pack.name, data=False)
    mount = mounts(store).start()
    with pytest.raises(OSError, match="Input/output error"):
        os.listdir(mount.point / "m" / "main")
    fails(5, pack.name, words=["log", mount.point / "m/main"])
    fails(5, pack.name, words=["log", "--store", store, "m/main"])
    (mount.point / "well").mkdir()
    (mount.point / "well/main/a").write_text("other models go on")
    mount.commit("well/main")


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "missing", "swapped"])
def test_a_damaged_record_of_the_log(model: Path, store: str, mounts: Callable[..., Mount], how: str) -> None:
    records = sorted(path for path in (model / "log").iterdir() if path.name.isdigit())
    record = records[1]
    if how == "flipped":
        flip(record, record.stat().st_size // 2)
    elif how == "cut":
        os.truncate(record, record.stat().st_size // 2)
    elif how == "empty":
        os.truncate(record, 0)
    elif how == "missing":
        record.unlink()
    else:
        record.write_bytes(records[0].read_bytes())
    broken(Path(store), record.name, data=False)
    mount = mounts(store).start()
    with pytest.raises(OSError, match="Input/output error"):
        os.listdir(mount.point / "m")
    fails(5, record.name, words=["log", mount.point / "m/main"])
    (mount.point / "well").mkdir()
    assert "well" in os.listdir(mount.point)
    assert "Traceback" not in mount.log_text()
