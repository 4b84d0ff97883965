"""The control socket, without a mount: protocol, limits, who may come in, what a leaving client cancels."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from mvcfs import errors
from mvcfs.fuse import control
from mvcfs.fuse.control import ControlServer
from mvcfs.fuse.control_client import call
from mvcfs.fuse.mounts import Mount
from mvcfs.fuse.runtime import default_runtime_dir, find_socket, make_runtime_dir, socket_path
from mvcfs.fuse.wire import REQUEST_LIMIT_BYTES, decode_error, encode_error
from mvcfs.vfs.command_progress import command_progress
from tests.fuse.conftest import REPOSITORY
from tests.fuse.fake_filesystem import FakeMount


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[ControlServer]:
    mount = FakeMount(path.parent / "drained")
    server = ControlServer(path, mount.commands, mount.progress)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        yield server
        await server.finish(5)
        nursery.cancel_scope.cancel()


async def ask(path: Path, *args: Any, **more: Any) -> dict[str, Any]:
    return await trio.to_thread.run_sync(partial(call, path, *args, **more))


def talk(path: Path, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        answer = b""
        # A server that has said no leaves the rest unread, which resets the connection.
        with suppress(BrokenPipeError):
            connection.sendall(data)
        with suppress(ConnectionResetError):
            while chunk := connection.recv(1 << 16):
                answer += chunk
        return answer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.sock"


async def test_a_command_gets_its_arguments_and_gives_its_result(path: Path) -> None:
    async with serving(path):
        args = {"path": os.fsdecode(b"\xff name"), "n": [1, None, "ü"]}
        assert await ask(path, "echo", args) == args
        big = {"data": "x" * 900_000}
        assert await ask(path, "echo", big) == big


async def test_errors_arrive_as_what_they_are(path: Path) -> None:
    async with serving(path):
        with pytest.raises(errors.AlreadyExists, match="there is one already"):
            await ask(path, "fail")
        with pytest.raises(errors.NotSupported, match="nonsense"):
            await ask(path, "nonsense")
        with pytest.raises(errors.MvcfsError, match="unexpected KeyError: 'oops'"):
            await ask(path, "bug")
        assert await ask(path, "echo", {"still": 1}) == {"still": 1}


@pytest.mark.parametrize(
    ("request_bytes", "said"),
    [
        (b"no json\n", "isn't JSON"),
        (b"[1]\n", "isn't a JSON object"),
        (b'{"command": "echo", "args": 3}\n', "must be an object"),
        (b'{"command": ["echo"]}\n', "no command"),
        (b"x" * (REQUEST_LIMIT_BYTES + 100_000), "longer than"),
    ],
)
async def test_nonsense_is_answered(path: Path, request_bytes: bytes, said: str) -> None:
    async with serving(path):
        answer = await trio.to_thread.run_sync(talk, path, request_bytes)
        assert said in json.loads(answer)["error"]["message"]


async def test_a_client_that_says_nothing_is_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "REQUEST_TIMEOUT_S", 0.1)
    async with serving(path):
        answer = await trio.to_thread.run_sync(talk, path, b"")
        assert "no request came" in json.loads(answer)["error"]["message"]


async def test_progress_is_reported_while_a_command_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PROGRESS_INTERVAL_S", 0.05)
    seen: list[Any] = []
    async with serving(path):
        args = {"s": 1.0, "touch": str(path.parent / "done")}
        assert await ask(path, "slow", args, on_progress=seen.append) == {"slept": 1.0}
    assert {"uploaded_bytes": 7} in seen


async def test_a_command_tells_its_own_progress(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands at once: each client is told of its own."""
    monkeypatch.setattr(control, "PROGRESS_INTERVAL_S", 0.02)
    heard: dict[str, list[Any]] = {"a": [], "b": []}
    told = {name: trio.Event() for name in heard}

    async def work(args: dict[str, Any]) -> dict[str, Any]:
        progress = command_progress()
        progress.start(args["name"], total=3, total_bytes=10)
        progress.add(things=1, size_bytes=4)
        await told[args["name"]].wait()
        return {}

    server = ControlServer(path, {"work": work}, lambda: {"step": "other"})

    async def client(name: str) -> None:
        def hear(report: Any) -> None:
            heard[name].append(report)
            trio.from_thread.run_sync(told[name].set)

        await ask(path, "work", {"name": name}, on_progress=hear)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            async with trio.open_nursery() as clients:
                for name in heard:
                    clients.start_soon(client, name)
            nursery.cancel_scope.cancel()
    for name, reports in heard.items():
        assert reports[0] == {"step": name, "done": 1, "total": 3, "done_bytes": 4, "total_bytes": 10}


async def test_a_client_that_goes_away_cancels_nothing(path: Path) -> None:
    done = path.parent / "done"
    async with serving(path):
        stream = await trio.open_unix_socket(str(path))
        await stream.send_all(json.dumps({"command": "slow", "args": {"s": 0.5, "touch": str(done)}}).encode() + b"\n")
        await trio.sleep(0.1)
        await stream.aclose()
    assert done.exists()


async def test_a_silent_daemon_leaves_the_outcome_open(path: Path) -> None:
    async with serving(path):
        with pytest.raises(errors.UnknownOutcome, match="silent"):
            await ask(path, "slow", {"s": 0.6, "touch": str(path.parent / "done")}, timeout_s=0.1)


async def test_too_many_commands_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_CONNECTIONS", 2)
    async with serving(path), trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(ask, path, "slow", {"s": 1.0, "touch": str(path.parent / f"done{number}")})
        await trio.sleep(0.4)
        with pytest.raises(errors.Busy):
            await ask(path, "echo")


def test_nobody_listening_is_not_found(path: Path) -> None:
    with pytest.raises(errors.NotFound, match="mvcfs mount"):
        call(path, "ping")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with pytest.raises(errors.NotFound, match="was killed"):
        call(path, "ping")


async def test_a_stale_socket_is_replaced_and_a_newer_one_left_alone(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with serving(path):
        assert await ask(path, "echo", {"a": 1}) == {"a": 1}
        async with serving(path):
            assert await ask(path, "echo", {"a": 2}) == {"a": 2}
    assert not await trio.Path(path).exists()


async def test_other_users_are_refused(open_folder: Path) -> None:
    path = open_folder / "s.sock"
    code = (
        "import os; from mvcfs.fuse.control_client import call; os.setgroups([]); os.setgid(65534); os.setuid(65534); "
    )
    code += f"call({str(path)!r}, 'echo', server_uid=0)"
    async with serving(path):
        await trio.Path(path).chmod(0o666)
        run: Callable[[], subprocess.CompletedProcess[str]] = partial(
            subprocess.run,
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        done = await trio.to_thread.run_sync(run)
    assert "only the user of the mount and root may command it" in done.stderr


def test_every_error_of_the_tree_travels() -> None:
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.MvcfsError):
            assert type(decode_error(encode_error(kind("why")))) is kind
    assert type(decode_error({"type": "annotations", "message": "x"})) is errors.MvcfsError
    assert type(decode_error({})) is errors.MvcfsError


def test_the_runtime_folder_must_be_ours_alone(tmp_path: Path) -> None:
    good = tmp_path / "a" / "run"
    make_runtime_dir(good)
    make_runtime_dir(good)
    assert good.stat().st_mode & 0o777 == 0o700
    good.chmod(0o755)
    with pytest.raises(errors.NotPermitted, match="open to others"):
        make_runtime_dir(good)
    link = tmp_path / "link"
    link.symlink_to(good)
    with pytest.raises(errors.NotPermitted, match="no directory"):
        make_runtime_dir(link)
    if os.geteuid() == 0:
        theirs = tmp_path / "theirs"
        theirs.mkdir(mode=0o700)
        os.chown(theirs, 65534, 65534)
        with pytest.raises(errors.NotPermitted, match="belongs to user 65534"):
            make_runtime_dir(theirs)


def test_sockets_have_short_names_of_their_own(tmp_path: Path) -> None:
    assert default_runtime_dir(0, "/run/user/0") == Path("/run/mvcfs")
    assert default_runtime_dir(5, "/run/user/5") == Path("/run/user/5/mvcfs")
    assert default_runtime_dir(5) == Path("/tmp/mvcfs-5")
    run = Path("/run/mvcfs")
    assert socket_path(run, "/a") != socket_path(run, "/b")
    assert socket_path(run, "/a") == socket_path(run, "/a")
    with pytest.raises(errors.InvalidArgument, match="too long"):
        socket_path(Path("/" + "x" * 100), "/a")
    mount = Mount("/m", "s", os.getuid(), "0:1", 1)
    assert find_socket(mount, tmp_path).parent == tmp_path
