"""When writes become versions, as docs/semantics.md states it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.mount.harness import Mount, mvcfs, wait_until


def test_quiet_files_become_one_version(mnt: Mount, main: Path) -> None:
    """When all closed changed files of a branch have been quiet for `settle` seconds, one version takes them all."""
    for i in range(10):
        (main / f"shard-{i}").write_bytes(os.urandom(100_000))
    versions = mnt.settled(1)
    assert len(os.listdir(mnt.snapshot(1))) == 10
    assert "10" in versions[0]["message"] or "shard-0" in versions[0]["message"]


def test_open_file_does_not_delay(mnt: Mount, main: Path) -> None:
    """A file that is still open neither delays a version nor enters it: the version keeps its previous content, or leaves a new file out."""
    (main / "old").write_text("before")
    mnt.settled(1)
    with open(main / "old", "a") as old, open(main / "new", "w") as new:
        old.write("-after")
        old.flush()
        new.write("x")
        new.flush()
        (main / "other").write_text("closed")
        mnt_versions = wait_until("a second version", lambda: [v for v in mnt.versions() if v["version"] == 2])
        assert mnt_versions
        assert sorted(os.listdir(mnt.snapshot(2))) == ["old", "other"]
        assert (mnt.snapshot(2) / "old").read_text() == "before"
    mnt.settled(3)
    assert (mnt.snapshot(3) / "old").read_text() == "before-after"
    assert (mnt.snapshot(3) / "new").read_text() == "x"


def test_explicit_commit_takes_open_files(mnt: Mount, main: Path) -> None:
    """`mvcfs commit PATH -m MSG` takes everything as it stands, open files included, and returns when it is durable in the store."""
    with open(main / "f", "w") as file:
        file.write("half")
        file.flush()
        made = mnt.commit(message="as it stands")
        assert made["version"] == 1
        assert (mnt.snapshot(1) / "f").read_text() == "half"
        file.write(" more")
    assert mnt.settled(2)[1]["message"].startswith("as it stands")
    assert (mnt.snapshot(1) / "f").read_text() == "half"
    assert (mnt.snapshot(2) / "f").read_text() == "half more"


def test_max_settle(store: str, mounts: Callable[..., Mount]) -> None:
    """After `max_settle` seconds of unrest the quiet files are committed anyway."""
    mnt = mounts(store).start("--settle", "1", "--max-settle", "2")
    (mnt.point / "m").mkdir()
    main = mnt.point / "m/main"
    (main / "quiet").write_text("q")
    end = time.monotonic() + 4
    while time.monotonic() < end:
        (main / "busy").write_text(str(time.monotonic()))
        time.sleep(0.2)
    assert mnt.versions()
    assert "quiet" in os.listdir(mnt.snapshot(1))


def test_finished_checkpoint(store: str, mounts: Callable[..., Mount]) -> None:
    """A rename that takes a name out of the ignored ones shortens the wait to half a second."""
    mnt = mounts(store).start("--settle", "30")
    (mnt.point / "m").mkdir()
    main = mnt.point / "m/main"
    (main / "tmp-checkpoint-5").mkdir()
    for i in range(4):
        (main / f"tmp-checkpoint-5/shard-{i}").write_bytes(os.urandom(70_000))
    assert mnt.versions() == []
    os.rename(main / "tmp-checkpoint-5", main / "checkpoint-5")
    versions = mnt.settled(1)
    assert versions[0]["message"].startswith("Add checkpoint-5/ (4 files, 280.0 kB)")


def test_renamed_directory_waits_for_its_files(mnt: Mount, main: Path) -> None:
    """A renamed directory is in no automatic version before every file under it is closed."""
    (main / "tmp-checkpoint-1").mkdir()
    file = open(main / "tmp-checkpoint-1/a", "w")
    file.write("1")
    file.flush()
    (main / "tmp-checkpoint-1/b").write_text("2")
    os.rename(main / "tmp-checkpoint-1", main / "checkpoint-1")
    (main / "other").write_text("x")
    wait_until("a version", mnt.versions)
    assert os.listdir(mnt.snapshot(1)) == ["other"]
    file.close()
    mnt.settled(2)
    assert sorted(os.listdir(mnt.snapshot(2) / "checkpoint-1")) == ["a", "b"]


def test_live_files(mnt: Mount, main: Path) -> None:
    """Live files (`*.log`, TensorBoard's event files, `wandb/`, and what `.mvcfslive` names) start no version; each version takes them as they stand, even open."""
    with open(main / "train.log", "w") as log:
        log.write("line 1\n")
        log.flush()
        time.sleep(1.5)
        assert mnt.versions() == []
        (main / "weights").write_text("w")
        mnt.settled(1)
        assert (mnt.snapshot(1) / "train.log").read_text() == "line 1\n"


def test_live_files_alone(store: str, mounts: Callable[..., Mount]) -> None:
    """Live files that are all that changes become a version every 10 minutes (`--live-interval`)."""
    mnt = mounts(store).start("--live-interval", "3")
    (mnt.point / "m").mkdir()
    with open(mnt.point / "m/main/train.log", "w") as log:
        log.write("line 1\n")
        log.flush()
        wait_until("a version", mnt.versions)
        assert (mnt.snapshot(1) / "train.log").read_text() == "line 1\n"


def test_path_out_of_ignored_is_versioned_whole(mnt: Mount, main: Path) -> None:
    """What is renamed from an ignored name to one that is not is versioned whole."""
    (main / "x.tmp").mkdir()
    (main / "x.tmp/a").write_text("1")
    (main / "x.tmp/deep").mkdir()
    (main / "x.tmp/deep/b").write_text("2")
    os.rename(main / "x.tmp", main / "x")
    mnt.settled(1)
    assert sorted(path.name for path in mnt.snapshot(1).rglob("*")) == ["a", "b", "deep", "x"]


def test_ignored_files(mnt: Mount, main: Path) -> None:
    """Ignored files (`*.tmp`, `tmp-checkpoint*/`, editors' and download temporaries, and what `.mvcfsignore` names) stay in the working tree and out of versions."""
    (main / ".mvcfsignore").write_text("secret\n!keep.tmp\n")
    mnt.settled(1)
    for name in ("a.tmp", "keep.tmp", "secret", "x.swp", "f"):
        (main / name).write_text(name)
    mnt.settled(2)
    assert sorted(os.listdir(mnt.snapshot(2))) == [".mvcfsignore", "f", "keep.tmp"]
    assert sorted(os.listdir(main)) == [".mvcfsignore", "a.tmp", "f", "keep.tmp", "secret", "x.swp"]
    row = mnt.status()["models"][0]
    assert row["ignored_files"] == 3


def test_umount_commits(mnt: Mount, main: Path) -> None:
    """`umount` commits closed files without waiting for `settle`; ignored files wait in the overlay for the next mount."""
    (main / "f").write_text("1")
    (main / "x.tmp").write_text("2")
    result = mnt.umount()
    assert "1" in result.stdout + result.stderr
    mnt.start()
    assert len(mnt.versions()) == 1
    assert (main / "x.tmp").read_text() == "2"


def test_no_version_without_change(mnt: Mount, main: Path) -> None:
    """A commit with nothing changed makes no version."""
    (main / "f").write_text("1")
    mnt.commit()
    assert mnt.commit()["unchanged"] is True
    assert len(mnt.versions()) == 1


def test_message_author_trailers(mnt: Mount, main: Path) -> None:
    """An automatic version's author is the user who wrote; its trailers name host, process and the job ids of the writing process."""
    program = f"open({str(main / 'f')!r}, 'w').write('x')"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "SLURM_JOB_ID": "4242"}, check=True)
    message = mnt.settled(1)[0]["message"]
    assert message.startswith("Add f (1 B)")
    assert f"Mvcfs-Host: {os.uname().nodename}" in message
    assert "Mvcfs-Process: python" in message
    assert "Mvcfs-Job: SLURM_JOB_ID=4242" in message
    import pwd

    assert mnt.versions()[0]["author"] == pwd.getpwuid(os.getuid()).pw_name


def test_tag(mnt: Mount, main: Path) -> None:
    """A tag names a version for good and is a directory of the model."""
    (main / "f").write_text("1")
    mnt.commit()
    mvcfs("tag", mnt.point / "m", "v1", "main@1", "-m", "first")
    (main / "f").write_text("2")
    mnt.commit()
    assert (mnt.point / "m/v1/f").read_text() == "1"
    assert "v1" in mnt.versions()[1]["tags"]
