import os

import pytest

from mvcfs.cli import doctor


def test_a_missing_device_names_the_command(tmp_path):
    check = doctor.check_device(str(tmp_path / "fuse"))
    assert check.state == "missing"
    assert "mknod" in check.fix


def test_a_missing_fusermount_names_the_package(monkeypatch):
    monkeypatch.setenv("PATH", "")
    check = doctor.check_fusermount()
    assert (check.state, "apt-get install -y fuse3" in check.fix) == ("missing", True)


def test_ordinary_users_need_a_table_of_mounts(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    check = doctor.check_mtab(tmp_path / "mtab")
    assert (check.state, check.fix) == ("missing", f"sudo ln -s /proc/self/mounts {tmp_path / 'mtab'}")
    (tmp_path / "mtab").symlink_to("/proc/self/mounts")
    assert doctor.check_mtab(tmp_path / "mtab").state == "ok"


def test_an_ordinary_users_commands_say_sudo(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert doctor.install_command("fuse3") == "sudo apt-get update && sudo apt-get install -y fuse3"


def test_allow_other_is_a_note_for_ordinary_users(monkeypatch, tmp_path):
    conf = tmp_path / "fuse.conf"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert doctor.check_allow_other(conf).state == "note"
    conf.write_text("#user_allow_other\n")
    assert doctor.check_allow_other(conf).state == "note"
    conf.write_text("user_allow_other\n")
    assert doctor.check_allow_other(conf).state == "ok"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert doctor.check_allow_other(tmp_path / "none").state == "ok"


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({}, "missing"),
        ({"core-site.xml": "<configuration/>"}, "ok"),
        ({"core-site.xml": "<configuration>"}, "missing"),
        ({"core-site.xml": "<configuration/>", "hdfs-site.xml": "x"}, "missing"),
    ],
)
def test_hadoops_configuration(tmp_path, files, state):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert doctor.check_hadoop_conf(tmp_path).state == state
    assert doctor.check_hadoop_conf(None).state == "note"


def test_a_cache_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    assert doctor.check_cache_dir(tmp_path / "file").state == "missing"
    assert doctor.check_cache_dir(tmp_path / "new").state == "ok"


def test_a_full_disk_is_missing_space(tmp_path, monkeypatch):
    monkeypatch.setattr(
        doctor.shutil, "disk_usage", lambda path: os.terminal_size((0, 0)) and type("U", (), {"free": 1})()
    )
    assert doctor.check_cache_dir(tmp_path / "new").state == "missing"


def test_something_missing_makes_the_exit_code_1(mvcfs, monkeypatch):
    monkeypatch.setattr(
        doctor, "check_device", lambda: doctor.Check("/dev/fuse", "missing", "not there", "modprobe fuse")
    )
    code, out, _ = mvcfs("doctor")
    assert code == 1
    assert "/dev/fuse: modprobe fuse" in out
