"""A mount that is only in the mount table's place, and a daemon that only notes what it is asked."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest

from mvcfs.cli import dispatch, place
from mvcfs.cli.app import run
from mvcfs.fuse.mounts import Mount


@dataclass
class FakeDaemon:
    answers: dict[str, object] = field(default_factory=dict)
    asked: list[tuple[str, dict]] = field(default_factory=list)

    def call(self, socket, command, args, *, on_progress=None, server_uid=None):
        self.asked.append((command, dict(args)))
        answer = self.answers.get(command, {})
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith(("MVCFS_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))


@pytest.fixture
def daemon(monkeypatch):
    """The daemon of a store mounted on /fake/models, which isn't there: nothing may touch it."""
    mount = Mount(mountpoint="/fake/models", source="hdfs://nn:8020/m", user_id=os.geteuid(), device="0:1", mount_id=1)
    fake = FakeDaemon()

    def find(path):
        text = os.fspath(path)
        return mount if text == mount.mountpoint or text.startswith(mount.mountpoint + "/") else None

    monkeypatch.setattr(place, "find_mount", find)
    monkeypatch.setattr(place, "list_mounts", lambda: [mount])
    monkeypatch.setattr(dispatch, "call_daemon", fake.call)
    return fake


@pytest.fixture
def mvcfs(capsys):
    """Runs a command line in this process: exit code, stdout, stderr."""

    def invoke(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return invoke
