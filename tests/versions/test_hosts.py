"""Several hosts publishing to one model under faults, against a plain list of what was acknowledged.

The rules that hold after every step: no acknowledged version is lost or there twice, what a reader saw stays the
beginning of what it sees later, version numbers never move, and any two hosts agree on every record both have read.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio
import trio.testing
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mvcfs.errors import MvcfsError, ReadOnly
from mvcfs.versions.log.publish import Attempt
from mvcfs.versions.log.reflog import record_name
from mvcfs.versions.repository import ModelRepository
from tests.versions.simulated import (
    AUTHOR,
    Crash,
    Plan,
    SimulatedStorage,
    World,
    commit_files,
    content_of,
    make_model,
    open_host,
)

HOSTS = ("a", "b", "c")
FAULTS = ("transient", "unknown", "lost", "late", "crash", "crash-after")
LOG = "models/llama/log/"


class Host:
    """One host: a repository, and what its caller keeps on disk."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.repository: ModelRepository
        self.storage: SimulatedStorage
        self.attempt: Attempt | None = None
        self.pending: bytes | None = None
        self.seen: list[str] = []

    def note(self, attempt: Attempt | None) -> None:
        self.attempt = attempt


def once(fault: str | None, step: int) -> Plan:
    """A plan in which one call goes wrong."""
    left = step

    def plan(operation: str, path: str) -> str | None:
        nonlocal left
        left -= 1
        return fault if left == -1 else None

    return plan


class ManyHosts(RuleBasedStateMachine):
    """Every write adds one file of a name of its own, so the tip tells which writes were published."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.world = World()
        self.hosts = {name: Host(name) for name in HOSTS}
        self.acknowledged: list[bytes] = []
        self.moves: list[str] = []
        self.protected: set[bool] = {False}
        self.given_up: set[bytes] = set()
        self.counter = 0
        self.restart = False

    def run(self, function: Any, *args: object) -> None:
        trio.run(function, *args, clock=trio.testing.MockClock(autojump_threshold=0))

    def teardown(self) -> None:
        self.folder.cleanup()

    @initialize()
    def start(self) -> None:
        self.run(self._start)

    async def _start(self) -> None:
        await make_model(self.world)

    async def _open(self, host: Host) -> None:
        host.repository, host.storage = await open_host(self.world, Path(self.folder.name), host.name)

    async def _resolve(self, host: Host) -> None:
        """What a caller does first: start again if it must, and settle what was left."""
        if not hasattr(host, "repository") or host.storage.dead or self.restart:
            await self._open(host)
        host.storage.plan = None
        if host.attempt is not None:
            assert host.pending is not None
            if await host.repository.resolve_attempt(host.attempt):
                self.acknowledged.append(host.pending)
                host.pending = None
            host.attempt = None

    async def _publish(self, host: Host, plan: Any) -> None:
        if host.pending is None:
            self.counter += 1
            host.pending = b"%d" % self.counter
        host.storage.plan = plan
        try:
            await commit_files(host.repository, {host.pending: host.pending}, on_attempt=host.note)
        except ReadOnly:
            assert True in self.protected
            return
        except (Crash, MvcfsError):
            return
        assert host.attempt is None
        assert False in self.protected
        self.acknowledged.append(host.pending)
        host.pending = None

    @rule(name=st.sampled_from(HOSTS))
    def publish(self, name: str) -> None:
        self.run(self._one, self.hosts[name], None)

    @rule(name=st.sampled_from(HOSTS), fault=st.sampled_from(FAULTS), step=st.integers(0, 14))
    def publish_with_a_fault(self, name: str, fault: str, step: int) -> None:
        self.run(self._one, self.hosts[name], once(fault, step))

    @rule(name=st.sampled_from(HOSTS), fault=st.none() | st.sampled_from(FAULTS), step=st.integers(0, 8))
    def move_the_alias(self, name: str, fault: str | None, step: int) -> None:
        self.run(self._move_alias, self.hosts[name], once(fault, step))

    @rule(name=st.sampled_from(HOSTS), on=st.booleans(), fault=st.none() | st.sampled_from(FAULTS))
    def protect(self, name: str, on: bool, fault: str | None) -> None:
        self.run(self._protect, self.hosts[name], on, once(fault, 3))

    @rule(seed=st.integers(0, 2**32), rate=st.sampled_from([0.02, 0.1, 0.3]))
    def publish_all_at_once(self, seed: int, rate: float) -> None:
        generator = random.Random(seed)

        def plan(operation: str, path: str) -> str | None:
            return generator.choice(FAULTS) if generator.random() < rate else None

        self.run(self._all, plan)

    @rule(below=st.integers(1, 30))
    def checkpoint_and_trim(self, below: int) -> None:
        self.run(self._trim, below)

    @rule(restart=st.booleans())
    def hosts_start_again_each_time(self, restart: bool) -> None:
        self.restart = restart

    @rule()
    def late_renames_happen(self) -> None:
        self.world.run_late()

    async def _move_alias(self, host: Host, plan: Any) -> None:
        """Each move says a number of its own; one that wasn't acknowledged may be in the log or not."""
        await self._resolve(host)
        tip = host.repository.refs.branch("main").tip
        if tip is None:
            return
        self.counter += 1
        why = f"{self.counter}"
        host.storage.plan = plan
        with contextlib.suppress(Crash, MvcfsError):
            await host.repository.set_alias("best", tip, who=AUTHOR, why=why)
            self.moves.append(why)

    async def _protect(self, host: Host, on: bool, plan: Any) -> None:
        """One that wasn't acknowledged may be true or not, also later: a late rename."""
        await self._resolve(host)
        host.storage.plan = plan
        try:
            await host.repository.protect_branch("main", on)
        except (Crash, MvcfsError):
            self.protected |= {on}
        else:
            self.protected = {on} if not self.world.late else self.protected | {on}

    async def _one(self, host: Host, plan: Any) -> None:
        await self._resolve(host)
        await self._publish(host, plan)

    async def _all(self, plan: Any) -> None:
        for host in self.hosts.values():
            await self._resolve(host)
        async with trio.open_nursery() as nursery:
            for host in self.hosts.values():
                nursery.start_soon(self._publish, host, plan)

    async def _trim(self, below: int) -> None:
        repository, _ = await open_host(self.world, Path(self.folder.name), "trimmer")
        await repository._model._writer.write_checkpoint(repository.state)
        for number in range(1, min(below, repository.refs.number)):
            with contextlib.suppress(KeyError):
                del self.world.files[LOG + record_name(number)]

    @invariant()
    def nothing_is_lost_or_twice(self) -> None:
        if "mvcfs.json" in self.world.files:
            self.run(self._check)

    async def _check(self) -> None:
        repository, _ = await open_host(self.world, Path(self.folder.name), "reader")
        branch = repository.refs.branch("main")
        versions = list(reversed(await repository.history("main")))
        assert [info.version for info in versions] == list(range(1, branch.version + 1))
        commits = [info.commit for info in versions]
        names: list[bytes] = []
        before: set[bytes] = set()
        for commit in commits:
            now = set(await content_of(repository, commit))
            assert before < now
            assert len(now - before) == 1
            names += now - before
            before = now
        assert len(set(names)) == len(names)
        assert set(self.acknowledged) <= set(names)
        assert len(set(self.acknowledged)) == len(self.acknowledged)
        if "best" in repository.refs.alias_logs:
            kept = [move.why for move in reversed(await repository.alias_moves("best"))]
            assert [why for why in kept if why in set(self.moves)] == self.moves
            assert len(set(kept)) == len(kept)
        else:
            assert not self.moves
        assert branch.protected in self.protected
        pending = {host.pending for host in self.hosts.values()}
        assert set(names) - set(self.acknowledged) <= pending
        reader = self.hosts["a"]
        assert commits[: len(reader.seen)] == reader.seen
        reader.seen = commits


ManyHosts.TestCase.settings = settings(
    max_examples=30, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
TestManyHosts = ManyHosts.TestCase
