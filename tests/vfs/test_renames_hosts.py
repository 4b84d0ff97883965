"""Two mounts, one of which renames what the other writes into: versions and working trees of both."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvcfs.errors import NotFound
from tests.vfs.test_filesystem_model import ROOT, opened
from tests.vfs.test_review_hosts import Host, two_hosts

Shown = dict[bytes, "bytes | Shown"]


async def directory(host: Host, name: bytes) -> int:
    return (await host.fs.mkdir(await host.driver.ino(()), name, 0o755, ROOT)).ino


async def put(host: Host, folder: bytes, name: bytes, data: bytes) -> None:
    """Writes a new file into a directory."""
    file, _ = await host.fs.create(await host.driver.ino((folder,)), name, 0o644, os.O_RDWR, ROOT)
    await host.fs.write(file.fh, 0, data)
    await host.fs.release(file.fh)


async def rename(host: Host, source: bytes, target: bytes) -> None:
    main = await host.driver.ino(())
    await host.fs.rename(main, source, main, target, 0, ROOT)


async def shown(host: Host, branch: bytes = b"main") -> Shown:
    """What the host shows of a branch."""

    async def look(ino: int) -> Shown:
        found: Shown = {}
        for name, child in await host.driver.list(ino):
            is_dir = (await host.fs.getattr(child)).mode & 0o040000
            found[name] = await look(child) if is_dir else await host.driver.read(child)
        return found

    return await look(await host.driver.ino((), branch))


async def changed(host: Host) -> bool:
    return (await (await host.engine.model("m")).branch("main")).tree.root.changed


async def test_what_a_host_adds_to_a_renamed_directory_goes_along(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await directory(a, b"tmp")
        await put(a, b"tmp", b"1", b"one")
        await a.commit()
        await b.refresh()
        await put(b, b"tmp", b"2", b"2" * 70_000)
        await rename(a, b"tmp", b"end")
        await a.commit()
        assert not (await b.commit())["conflict"]
        await a.refresh()
        wanted = {b"end": {b"1": b"one", b"2": b"2" * 70_000}}
        assert await shown(a) == await shown(b) == wanted
        assert not await changed(b)
        assert (await b.commit())["unchanged"]
        await a.refresh()
        assert await shown(a) == wanted
    async with opened(tmp_path / "store", tmp_path / "b", host="b") as engine:
        assert await shown(Host(engine)) == wanted


async def test_a_file_that_is_open_meanwhile_goes_along_with_the_next_version(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await directory(a, b"tmp")
        await put(a, b"tmp", b"1", b"one")
        await a.commit()
        await b.refresh()
        await put(b, b"tmp", b"2", b"two")
        folder = await b.driver.ino((b"tmp",))
        file, _ = await b.fs.create(folder, b"3", 0o644, os.O_RDWR, ROOT)
        await b.fs.write(file.fh, 0, b"thr")
        await rename(a, b"tmp", b"end")
        await a.commit()
        await b.automatic()
        await b.refresh()
        await b.fs.write(file.fh, 3, b"ee")
        await b.fs.release(file.fh)
        await b.automatic()
        await a.refresh()
        assert await shown(a) == await shown(b) == {b"end": {b"1": b"one", b"2": b"two", b"3": b"three"}}
        assert not await changed(b)
        refs = (await a.engine.model("m")).data.repository.refs
        assert list(refs.branches) == ["main"]


async def test_a_file_that_is_being_written_is_not_taken_away(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await directory(a, b"tmp")
        await put(a, b"tmp", b"1", b"one")
        await a.commit()
        await b.refresh()
        folder = await b.driver.ino((b"tmp",))
        file, _ = await b.fs.create(folder, b"2", 0o644, os.O_RDWR, ROOT)
        await b.fs.write(file.fh, 0, b"half")
        await rename(a, b"tmp", b"end")
        await a.commit()
        await b.commit()
        await a.refresh()
        assert await shown(a) == {b"end": {b"1": b"one", b"2": b"half"}}
        await b.fs.write(file.fh, 4, b" whole")
        await b.fs.release(file.fh)
        await b.commit()
        await a.refresh()
        assert await shown(a) == await shown(b) == {b"end": {b"1": b"one", b"2": b"half whole"}}


async def test_a_change_goes_to_the_new_name_of_a_file(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await a.put(b"f", b"f" * 70_000)
        await a.commit()
        await b.refresh()
        await b.driver.write(await b.driver.ino((b"f",)), 0, b"changed")
        await rename(a, b"f", b"g")
        await a.commit()
        assert not (await b.commit())["conflict"]
        await a.refresh()
        assert await shown(a) == await shown(b) == {b"g": b"changed" + b"f" * 69_993}


TEXT = b"".join(b"line %d\n" % number for number in range(20))


async def test_lines_written_on_two_hosts_join(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await a.put(b"f", TEXT)
        await a.commit()
        await b.refresh()
        await a.put(b"f", TEXT.replace(b"line 2\n", b"from a\n"))
        await a.commit()
        await b.put(b"f", TEXT.replace(b"line 17\n", b"from b\n"))
        assert not (await b.commit())["conflict"]
        await a.refresh()
        joined = TEXT.replace(b"line 2\n", b"from a\n").replace(b"line 17\n", b"from b\n")
        assert await a.read(b"f") == await b.read(b"f") == joined
        assert not await changed(b)


async def test_lines_of_a_file_that_is_being_written_join_with_the_next_version(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await a.put(b"f", TEXT)
        await a.commit()
        await b.refresh()
        await a.put(b"f", TEXT.replace(b"line 2\n", b"from a\n"))
        await a.commit()
        file = await b.fs.open(await b.driver.ino((b"f",)), os.O_RDWR, ROOT)
        await b.fs.write(file.fh, TEXT.index(b"line 17"), b"LINE 17")
        await b.commit()
        await b.fs.write(file.fh, TEXT.index(b"line 11"), b"LINE 11")
        await b.fs.release(file.fh)
        await b.commit()
        await a.refresh()
        joined = TEXT.replace(b"line 2\n", b"from a\n").replace(b"line 17", b"LINE 17").replace(b"line 11", b"LINE 11")
        assert await a.read(b"f") == await b.read(b"f") == joined


async def test_what_others_added_to_a_directory_removed_here_shows(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await directory(a, b"d")
        await put(a, b"d", b"1", b"one")
        await a.commit()
        await b.refresh()
        await put(a, b"d", b"2", b"two")
        await a.commit()
        folder = await b.driver.ino((b"d",))
        await b.fs.unlink(folder, b"1", ROOT)
        await b.fs.rmdir(await b.driver.ino(()), b"d", ROOT)
        assert not (await b.commit())["conflict"]
        for _ in range(2):
            await a.refresh()
            assert await shown(a) == await shown(b) == {b"d": {b"2": b"two"}}
            await b.commit()


async def test_a_rename_meanwhile_survives_a_kill(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await directory(a, b"tmp")
        await put(a, b"tmp", b"1", b"one")
        await a.commit()
        await b.refresh()
        await put(b, b"tmp", b"2", b"two")
        file, _ = await b.fs.create(await b.driver.ino((b"tmp",)), b"3", 0o644, os.O_RDWR, ROOT)
        await b.fs.write(file.fh, 0, b"three")
        await rename(a, b"tmp", b"end")
        await a.commit()
        await b.automatic()
    wanted = {b"end": {b"1": b"one", b"2": b"two", b"3": b"three"}}
    async with opened(tmp_path / "store", tmp_path / "b", host="b") as engine:
        b = Host(engine)
        assert not (await b.commit())["conflict"]
        assert await shown(b) == wanted
        with trio.fail_after(5):
            assert (await b.commit())["unchanged"]
        try:
            await b.driver.ino((b"tmp",))
        except NotFound:
            return
        raise AssertionError("the old name is still there")


async def test_a_directory_that_was_empty_when_it_was_seen_takes_its_additions_along(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await directory(a, b"tmp")
        await directory(a, b"tmp2")
        await a.commit()
        await b.refresh()
        await put(b, b"tmp", b"2", b"two")
        await put(a, b"tmp", b"1", b"one")
        await put(a, b"tmp2", b"x", b"x")
        await a.commit()
        await rename(a, b"tmp", b"end")
        await a.commit()
        await b.refresh()
        assert not (await b.commit())["conflict"]
        await a.refresh()
        assert await shown(a) == await shown(b) == {b"end": {b"1": b"one", b"2": b"two"}, b"tmp2": {b"x": b"x"}}


async def test_a_renamed_empty_directory_that_another_host_filled(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await directory(a, b"tmp")
        await a.commit()
        await b.refresh()
        await put(b, b"tmp", b"2", b"two")
        await put(a, b"tmp", b"1", b"one")
        await rename(a, b"tmp", b"end")
        await b.commit()
        assert not (await a.commit())["conflict"]
        await b.refresh()
        assert await shown(a) == await shown(b) == {b"end": {b"1": b"one", b"2": b"two"}}


async def test_a_directory_that_both_made_goes_where_one_renamed_it(tmp_path: Path) -> None:
    for followed in (False, True):
        async with two_hosts(tmp_path / str(followed)) as (a, b):
            await a.put(b"f", b"f")
            await a.commit()
            await b.refresh()
            for host, name in ((a, b"1"), (b, b"2")):
                await directory(host, b"tmp")
                await put(host, b"tmp", name, name)
            await a.commit()
            await rename(a, b"tmp", b"mid")
            await a.commit()
            await rename(a, b"mid", b"end")
            await a.commit()
            if followed:
                await b.refresh()
            assert not (await b.commit())["conflict"]
            await a.refresh()
            assert await shown(a) == await shown(b) == {b"f": b"f", b"end": {b"1": b"1", b"2": b"2"}}


async def test_a_name_used_again_is_not_renamed_with_the_earlier_one(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await directory(a, b"tmp")
        await put(a, b"tmp", b"1", b"one")
        await a.commit()
        await b.refresh()
        await b.put(b"other", b"b")
        await b.commit()
        await rename(a, b"tmp", b"end")
        await a.commit()
        await directory(a, b"tmp")
        await put(a, b"tmp", b"2", b"two")
        await a.commit()
        await b.refresh()
        assert await shown(a) == await shown(b) == {
            b"end": {b"1": b"one"}, b"tmp": {b"2": b"two"}, b"other": b"b",
        }  # fmt: skip


folders = st.sampled_from([b"d", b"e", b"f"])
steps = st.lists(
    st.tuples(
        st.integers(0, 1), st.sampled_from(["put", "put", "open", "close", "rename", "commit", "automatic", "refresh"]), folders, folders
    ),
    min_size=4, max_size=30,
)  # fmt: skip


class Player:
    """Two hosts that only make files and rename directories: whatever comes of it, all contents are there at the end."""

    def __init__(self, hosts: tuple[Host, Host]) -> None:
        self.hosts = hosts
        self.open: list[list[int]] = [[], []]
        self.written: set[bytes] = set()

    async def step(self, number: int, who: int, what: str, folder: bytes, target: bytes) -> None:
        host = self.hosts[who]
        there = {name for name, _ in await host.driver.list(await host.driver.ino(()))}
        if what in ("put", "open"):
            if folder not in there:
                await directory(host, folder)
            data = b"%d of %d" % (number, who)
            file, _ = await host.fs.create(await host.driver.ino((folder,)), b"%d" % number, 0o644, os.O_RDWR, ROOT)
            await host.fs.write(file.fh, 0, data)
            self.written.add(data)
            self.open[who].append(file.fh)
            if what == "put":
                await host.fs.release(self.open[who].pop())
        elif what == "close" and self.open[who]:
            await host.fs.release(self.open[who].pop(0))
        elif what == "rename" and folder in there and target not in there:
            await rename(host, folder, target)
        elif what in ("commit", "automatic", "refresh"):
            await getattr(host, what)()

    async def finish(self) -> None:
        for _ in range(2):
            for who, host in enumerate(self.hosts):
                while self.open[who]:
                    await host.fs.release(self.open[who].pop())
                await host.commit()
        for host in self.hosts:
            await host.refresh()

    async def found(self) -> set[bytes]:
        """Contents of the branch and of the conflict branches."""
        host = self.hosts[0]
        contents: set[bytes] = set()
        for branch in (await host.engine.model("m")).data.repository.refs.branches:
            contents |= flat(await shown(host, branch.encode()))
        return contents


def flat(tree: Shown) -> set[bytes]:
    found: set[bytes] = set()
    for what in tree.values():
        found |= {what} if isinstance(what, bytes) else flat(what)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_whatever_is_renamed_all_that_was_written_is_there(todo: list[tuple[int, str, bytes, bytes]]) -> None:
    """Every file that was made is on the branch or on a conflict branch at the end, and both hosts show the same."""

    async def play(folder: Path) -> None:
        async with two_hosts(folder) as hosts:
            player = Player(hosts)
            for number, (who, what, name, target) in enumerate(todo):
                await player.step(number, who, what, name, target)
            await player.finish()
            assert await player.found() == player.written
            assert await shown(hosts[0]) == await shown(hosts[1])

    with tempfile.TemporaryDirectory() as folder:
        trio.run(play, Path(folder))
