from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvcfs.errors import AlreadyExists, CorruptData, InvalidName, NotFound, UnsupportedFormat
from mvcfs.storage.local import LocalStorage
from mvcfs.versions.store import Store
from tests.versions.simulated import SimulatedStorage, World, commit_files, content_of, publisher


async def new_store() -> tuple[Store, SimulatedStorage, World]:
    world = World()
    storage = SimulatedStorage(world)
    return await Store.init(storage), storage, world


async def test_init_and_open() -> None:
    store, storage, _ = await new_store()
    assert (await Store.open(storage)).id == store.id
    with pytest.raises(AlreadyExists, match="memory://"):
        await Store.init(storage)


async def test_no_store_says_how_to_make_one() -> None:
    with pytest.raises(NotFound, match="mvcfs init memory://"):
        await Store.open(SimulatedStorage(World()))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mvcfs": 2}, UnsupportedFormat, "format 2"),
        ({"features": ["zstd"]}, UnsupportedFormat, "zstd"),
        ({"id": 5}, CorruptData, "id"),
        ({"mvcfs": "x"}, CorruptData, "mvcfs"),
    ],
)
async def test_foreign_stores_are_refused(change: dict[str, object], error: type[Exception], message: str) -> None:
    _, storage, world = await new_store()
    world.files["mvcfs.json"] = json.dumps(json.loads(world.files["mvcfs.json"]) | change).encode()
    with pytest.raises(error, match=message):
        await Store.open(storage)


async def test_the_life_of_a_model(tmp_path: Path) -> None:
    store, _, world = await new_store()
    model_id = await store.create_model("llama", publisher=publisher())
    assert await store.models() == ["llama"]
    assert not [path for path in world.files if path.startswith("tmp/")]
    with pytest.raises(AlreadyExists, match="'llama'"):
        await store.create_model("llama", publisher=publisher())
    with pytest.raises(InvalidName):
        await store.create_model("a/b", publisher=publisher())
    repository = await store.open_model("llama", local_dir=tmp_path / "a", publisher=publisher())
    assert repository.id == model_id
    assert list(repository.refs.branches) == ["main"]
    published = await commit_files(repository, {b"x": b"one"})
    await store.rename_model("llama", "alpaca")
    assert await store.find_by_id(model_id) == "alpaca"
    await store.remove_model("alpaca", time_ns=7)
    assert await store.models() == []
    assert await store.find_by_id(model_id) is None
    (removed,) = await store.removed_models()
    assert (removed.name, removed.id, removed.time_ns) == ("alpaca", model_id, 7)
    with pytest.raises(NotFound, match="'llama'"):
        await store.undelete_model("llama")
    await store.create_model("alpaca", publisher=publisher())
    with pytest.raises(AlreadyExists):
        await store.undelete_model("alpaca")
    await store.remove_model("alpaca")
    await store.create_model("alpaca", publisher=publisher())
    await store.rename_model("alpaca", "other")
    await store.undelete_model("alpaca")
    assert await store.find_by_id(model_id) is None
    await store.remove_model("alpaca")
    world.delete(f"deleted/{(await store.removed_models())[-1].path.partition('/')[2]}", True)
    await store.undelete_model("alpaca")
    again = await store.open_model("alpaca", local_dir=tmp_path / "b", publisher=publisher())
    assert again.id == model_id
    assert await content_of(again, published.commit) == {b"x": b"one"}
    with pytest.raises(NotFound, match="there is alpaca, other"):
        await store.open_model("nothing", local_dir=tmp_path / "c", publisher=publisher())


@pytest.mark.parametrize("fault", ["lost", "unknown", "late"])
async def test_lost_answers_do_no_harm(fault: str, autojump_clock: object) -> None:
    store, storage, world = await new_store()
    renames = 0

    def plan(operation: str, path: str) -> str | None:
        nonlocal renames
        renames += operation == "rename"
        return fault if operation == "rename" and renames == 1 else None

    for work in (
        lambda: store.create_model("a", publisher=publisher()),
        lambda: store.rename_model("a", "b"),
        lambda: store.remove_model("b"),
        lambda: store.undelete_model("b"),
    ):
        renames, storage.plan = 0, plan
        await work()  # type: ignore[no-untyped-call]
        world.run_late()
        storage.plan = None
    assert await store.models() == ["b"]
    assert await store.removed_models() == []


async def test_two_create_one_model_once() -> None:
    world = World()
    first = await Store.init(SimulatedStorage(world))
    storage = SimulatedStorage(world)
    second = await Store.open(storage)
    ids = []

    async def hook(operation: str, path: str) -> None:
        if operation == "rename":
            storage.hook = None
            ids.append(await first.create_model("a", publisher=publisher()))

    storage.hook = hook
    with pytest.raises(AlreadyExists):
        await second.create_model("a", publisher=publisher())
    assert await first.find_by_id(ids[0]) == "a"


async def test_on_a_local_folder(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    store = await Store.init(storage)
    await store.create_model("llama", publisher=publisher())
    repository = await store.open_model("llama", local_dir=tmp_path / "a", publisher=publisher())
    published = await commit_files(repository, {b"x": b"one", b"big": b"1" * 65_000, b"b2": b"2" * 65_000})
    other = await store.open_model("llama", local_dir=tmp_path / "b", publisher=publisher())
    assert await content_of(other, published.commit) == await content_of(repository, published.commit)
    assert [problem for problem in await other.fsck() if problem.severity.value == "damage"] == []
    await storage.aclose()
