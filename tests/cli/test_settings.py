"""Flag over environment over file, for all that `mount` takes; the mount itself is caught before it is made."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from mvcfs.cli.app import as_command, build_command, environment_name
from mvcfs.cli.mount import split_options
from mvcfs.config import EngineConfig, VersionRules


@pytest.fixture
def caught(monkeypatch, tmp_path):
    """What `mount` would have mounted."""
    from mvcfs.fuse import session

    found = {}

    def open_mounted(url, stores, config):
        found.update(url=url, stores=stores, config=config)

    monkeypatch.setitem(sys.modules, "mvcfs.cli.serving", SimpleNamespace(open_mounted=open_mounted))
    monkeypatch.setattr(session, "run_mount", lambda make, options: found.update(options=options))
    monkeypatch.setenv("MVCFS_CACHE_DIR", str(tmp_path / "cache"))
    return found


def test_defaults_are_those_of_the_layers_below(caught, mvcfs):
    assert mvcfs("mount", "hdfs://nn:8020/m", "/mnt/x")[0] == 0
    config = caught["config"]
    defaults = EngineConfig(config.cache_dir, config.host, config.user)
    assert config == defaults
    assert config.rules == VersionRules()


def test_flag_environment_file(caught, mvcfs, monkeypatch, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('memory = "1M"\nsettle = 1\nrefresh = "1s"\n[mount]\nxattr = true\n[log]\nlimit = 3\n')
    monkeypatch.setenv("MVCFS_MEMORY", "2M")
    monkeypatch.setenv("MVCFS_SETTLE", "2s")
    code, _, err = mvcfs("mount", "hdfs://nn:8020/m", "/mnt/x", "--config", str(path), "--memory", "3M")
    assert (code, err) == (0, "")
    config = caught["config"]
    assert config.memory_bytes == 3 << 20
    assert config.rules.settle_s == 2.0
    assert config.refresh_s == 1.0
    assert config.xattr is True


def test_the_file_may_be_named_before_the_command_or_in_the_environment(caught, mvcfs, monkeypatch, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("show-history = true")
    assert mvcfs("--config", str(path), "mount", "hdfs://nn:8020/m", "/mnt/x")[0] == 0
    assert caught["config"].show_history is True
    caught.clear()
    monkeypatch.setenv("MVCFS_CONFIG", str(path))
    assert mvcfs("mount", "hdfs://nn:8020/m", "/mnt/x")[0] == 0
    assert caught["config"].show_history is True


def test_a_flag_takes_back_what_the_file_says(caught, mvcfs, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("xattr = true")
    assert mvcfs("mount", "hdfs://nn:8020/m", "/mnt/x", "--config", str(path), "--no-xattr")[0] == 0
    assert caught["config"].xattr is False


@pytest.mark.parametrize(
    ("text", "named"), [("memroy = 1", "memroy"), ("[mount]\nmemory = 'x'", "x"), ("[mnt]\nx = 1", "mnt")]
)
def test_a_wrong_file_is_refused_by_name(caught, mvcfs, tmp_path, text, named):
    path = tmp_path / "c.toml"
    path.write_text(text)
    code, _, err = mvcfs("mount", "hdfs://nn:8020/m", "/mnt/x", "--config", str(path))
    assert code == 2
    assert named in err
    assert not caught


@pytest.mark.parametrize("flag", ["--memory=2X", "--settle=soon", "--block-cache=-1"])
def test_a_value_that_is_none_is_refused_with_an_example(caught, mvcfs, flag):
    code, _, err = mvcfs("mount", "hdfs://nn:8020/m", "/mnt/x", flag)
    assert code == 2
    assert "write for example" in err
    assert not caught


def test_every_option_can_be_given_in_the_environment():
    root = build_command(fancy=False)
    for command in root.commands.values():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.envvar.startswith("MVCFS_")
    assert environment_name(["-o", "--options"]) == "MVCFS_OPTIONS"
    assert environment_name(["--cache-dir"]) == "MVCFS_CACHE_DIR"


@pytest.mark.parametrize(
    "arguments",
    [
        ["hdfs://nn:8020/m", "/mnt/x", "-o", "rw,dev,suid,memory=1G,show-history,noatime,_netdev"],
        ["mount", "hdfs://nn:8020/m", "/mnt/x", "-omemory=1G", "-o", "show_history,noatime"],
        ["mount", "-o", "noatime", "--options=memory=1G,show-history", "hdfs://nn:8020/m", "/mnt/x"],
    ],
)
def test_the_form_of_mount_helpers_and_of_fstab(caught, mvcfs, arguments):
    code, _, err = mvcfs(*arguments)
    assert (code, err) == (0, "")
    assert caught["url"] == "hdfs://nn:8020/m"
    assert caught["config"].memory_bytes == 1 << 30
    assert caught["config"].show_history is True
    assert "noatime" in caught["options"].kernel_options


def test_read_only_both_ways(caught, mvcfs):
    for extra in (["-o", "ro"], ["--read-only"]):
        caught.clear()
        assert mvcfs("mount", "hdfs://nn:8020/m", "/mnt/x", *extra)[0] == 0
        assert caught["config"].read_only is True
        assert "ro" in caught["options"].kernel_options


@pytest.mark.parametrize("options", ["bogus", "memory", "xattr=1", "memory=2X", "json"])
def test_wrong_mount_options_are_refused(caught, mvcfs, options):
    code, _, err = mvcfs("mount", "hdfs://nn:8020/m", "/mnt/x", "-o", options)
    assert code == 2
    assert options.partition("=")[0] in err
    assert not caught


def test_relative_paths_are_made_absolute_before_the_daemon_leaves(caught, mvcfs, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, _ = mvcfs("mount", "store", "mnt", "--json")
    assert code == 0
    assert caught["url"] == f"file://{tmp_path}/store"
    assert json.loads(out) == {"store": f"file://{tmp_path}/store", "mountpoint": str(tmp_path / "mnt")}
    assert caught["options"].log_file.is_absolute()


def test_what_is_a_command_and_what_a_store():
    commands = {"log", "mount"}
    assert as_command(["hdfs://x/y", "/mnt", "-o", "ro"], commands) == ["mount", "hdfs://x/y", "/mnt", "-o", "ro"]
    assert as_command(["/store", "/mnt"], commands) == ["mount", "/store", "/mnt"]
    for other in (["log", "/x/y"], ["lgo", "/x/y"], ["--help"], ["/store"], ["/store", "--help"]):
        assert as_command(other, commands) == other


def test_options_end_at_two_dashes():
    assert split_options(["a", "-o", "x", "--", "-o", "y"]) == (["a", "--", "-o", "y"], ["x"])
