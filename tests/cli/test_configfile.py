import pytest

from mvcfs.cli.configfile import load_config
from mvcfs.errors import InvalidArgument, NotFound

OPTIONS = {
    "mount": {"memory": "--memory", "xattr": "--xattr", "options": "--options", "config": "--config"},
    "log": {"limit": "--limit", "config": "--config"},
}


def write(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_a_table_wins_over_the_top_level_and_other_commands_see_neither(tmp_path):
    path = write(tmp_path, 'memory = "1G"\nxattr = true\n[mount]\nmemory = "2G"\n[log]\nlimit = 5\n')
    assert load_config(path, "mount", OPTIONS) == {"memory": "2G", "xattr": True}
    assert load_config(path, "log", OPTIONS) == {"limit": "5"}


def test_dashes_and_underscores_are_one(tmp_path):
    options = {"mount": {"cache_dir": "--cache-dir"}}
    assert load_config(write(tmp_path, 'cache-dir = "/x"'), "mount", options) == {"cache_dir": "/x"}


def test_lists_of_strings_are_kept(tmp_path):
    assert load_config(write(tmp_path, 'options = ["ro", "noatime"]'), "mount", OPTIONS) == {
        "options": ["ro", "noatime"]
    }


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("memroy = 1", "memroy"),
        ("[mount]\nlimit = 1", "mount.limit"),
        ("[mounts]\nmemory = 1", "mounts"),
        ('config = "x"', "config"),
        ("[log]\nmemroy = 1", "log.memroy"),
        ("memory = 1979-05-27", "memory"),
        ("memory = [1]", "memory"),
        ("memory = ?", "line 1"),
    ],
)
def test_errors_name_key_and_file(tmp_path, text, named):
    path = write(tmp_path, text)
    with pytest.raises(InvalidArgument) as caught:
        load_config(path, "mount", OPTIONS)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_named_file_must_be_there(tmp_path):
    with pytest.raises(NotFound, match="nowhere"):
        load_config(tmp_path / "nowhere", "mount", OPTIONS)


def test_the_users_file_is_found_without_being_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "mvcfs").mkdir()
    (tmp_path / "mvcfs" / "config.toml").write_text("xattr = true")
    assert load_config(None, "mount", OPTIONS) == {"xattr": True}
