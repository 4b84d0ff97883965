import os

import pytest

from mvcfs.cli.localstate import default_cache_dir, log_path, prepare_cache_dir
from mvcfs.errors import NotPermitted


def test_the_cache_folder_is_made_for_its_user_alone(tmp_path):
    made = prepare_cache_dir(tmp_path / "a" / "cache")
    assert made.stat().st_mode & 0o777 == 0o700


def test_an_open_one_of_ours_is_closed_to_others(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o755)
    prepare_cache_dir(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_symlink_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(NotPermitted, match="symbolic link"):
        prepare_cache_dir(tmp_path / "link")


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotPermitted, match="not a directory"):
        prepare_cache_dir(tmp_path / "file")


def test_somebody_elses_folder_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(NotPermitted, match="belongs to user"):
        prepare_cache_dir(folder)


def test_where_it_is_by_default(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert str(default_cache_dir()) == "/var/cache/mvcfs"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "mvcfs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "mvcfs"


def test_each_mount_point_has_its_own_log(tmp_path):
    names = {log_path(tmp_path, where).name for where in ("/a/b", "/a-b", "/a.b", "/", "/" + "x" * 500, "/\udcff")}
    assert len(names) == 6
    assert all(len(name) < 80 and "/" not in name for name in names)
