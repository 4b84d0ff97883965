"""Which names the kernel is told of when refs change."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mvcfs.versions.log.records import AliasChange, BranchHide, BranchMove, TagChange
from mvcfs.versions.log.refs import Refs, RefTable
from mvcfs.vfs.shown_names import LEVEL, ShownNames


def refs(table: RefTable) -> Refs:
    return table.refs(1, (), (), ())


def told(shown: ShownNames, table: RefTable) -> set[tuple[int, bytes]]:
    return {(one.ino, one.name) for one in shown.changes(refs(table))}


def oid(number: int) -> str:
    return f"{number:040x}"


def test_only_names_that_stand_for_something_else() -> None:
    table, shown = RefTable(), ShownNames()
    for number, name in enumerate(("main", "feature/x", "feature/y")):
        table.apply(BranchMove(f"{number:032x}", name, None, 0), "test")
    table.apply(AliasChange("best", oid(1)), "test")
    for number, place in enumerate(((LEVEL, ""), (LEVEL, "feature/"), ("aliases", ""), ("branches", "feature/"))):
        shown.add(*place, number)
    assert told(shown, table) == set()
    table.apply(BranchMove(f"{0:032x}", "main", oid(5), 1), "test")
    assert told(shown, table) == set()
    table.apply(AliasChange("best", oid(2)), "test")
    assert told(shown, table) == {(0, b"best"), (2, b"best")}
    table.apply(BranchMove(f"{1:032x}", "feature/z", None, 0), "test")
    assert told(shown, table) == {(1, b"x"), (1, b"z"), (3, b"x"), (3, b"z")}
    table.apply(BranchHide(f"{1:032x}"), "test")
    table.apply(BranchHide(f"{2:032x}"), "test")
    assert told(shown, table) == {(0, b"feature"), (1, b"y"), (1, b"z"), (3, b"y"), (3, b"z")}


NAMES = ("a", "b", "a/c", "a/d", "b/c/d")
marks = st.builds(
    lambda kind, name, target: kind(name, target),
    st.sampled_from([TagChange, AliasChange]), st.sampled_from(NAMES), st.none() | st.sampled_from([oid(1), oid(2)]),
)  # fmt: skip


@given(st.lists(marks, max_size=12))
def test_what_is_not_told_stands_for_the_same(changes: list[TagChange | AliasChange]) -> None:
    table, shown = RefTable(), ShownNames()
    places = [(LEVEL, ""), (LEVEL, "a/"), (LEVEL, "b/"), (LEVEL, "b/c/")]
    for number, place in enumerate(places):
        shown.add(*place, number)
    shown.changes(refs(table))

    def meaning(prefix: str, name: str) -> str | None:
        now, full = refs(table), prefix + name
        marked = {**now.aliases, **now.tags}
        if any(other.startswith(full + "/") for other in marked):
            return LEVEL
        return marked.get(full)

    every = list(itertools.product(enumerate(prefix for _, prefix in places), ("a", "b", "c", "d")))
    for change in changes:
        before = {(ino, name.encode()): meaning(prefix, name) for (ino, prefix), name in every}
        table.apply(change, "test")
        changed = told(shown, table)
        after = {(ino, name.encode()): meaning(prefix, name) for (ino, prefix), name in every}
        assert changed == {key for key in before if before[key] != after[key]}
