"""Publishing what a Git repository brings: its objects as Git packs, then one record that names them, the manifests and the refs.

What is refused is refused before anything is uploaded, and looked at again when the record is made. Threading: trio thread.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from mvcfs.types import StoredFile
from mvcfs.versions.log.publish import Draft
from mvcfs.versions.log.state import LogState
from mvcfs.versions.plain_git.git_source import Stage
from mvcfs.versions.plain_git.import_plan import ChosenRefs, ImportPlan, Planner
from mvcfs.versions.publishing.synced import SyncedModel


async def publish_import(
    model: SyncedModel,
    stage: Stage,
    chosen: ChosenRefs,
    manifests: tuple[StoredFile, ...],
    packs: tuple[StoredFile, ...],
    on_upload: Callable[[int], None],
    who: str,
) -> ImportPlan:
    """See `ModelRepository.publish_import`; `who` imports."""
    planner = Planner(stage.objects, chosen, who=who)
    await trio.to_thread.run_sync(planner.plan, model.state.refs)
    uploaded: list[StoredFile] = []

    async def draft(state: LogState) -> tuple[Draft | None, ImportPlan]:
        plan = await trio.to_thread.run_sync(planner.plan, state.refs)
        if not (plan.changes or uploaded or manifests or packs):
            return None, plan
        record = Draft("import", tuple(plan.changes), git=tuple(uploaded), manifests=manifests, packs=packs)
        return record, plan

    try:
        for pack in await stage.new_packs(model.objects):
            uploaded.append(await model.files.upload_pack(pack))
            on_upload(uploaded[-1].size_bytes)
        return await model.publish(draft)
    finally:
        model.files.abandon(uploaded)
