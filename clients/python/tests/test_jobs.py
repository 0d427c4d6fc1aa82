"""Work on whole collections."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from memcell_client import AsyncMemCellClient, Conflict, Invalid, Job, NotFound, Timeout

NOON = datetime(2025, 6, 26, 12, tzinfo=UTC)


async def test_a_job_from_its_order_to_its_end(client: AsyncMemCellClient) -> None:
    for _ in range(3):
        await client.append({"timestamp": NOON})
    ordered = await client.order_job("verify", deep=True)
    assert (ordered.kind, ordered.backend, ordered.deep) == ("verify", "local", True)
    seen: list[Job] = []
    job = await client.wait_for_job(ordered.id, timeout=60, poll=0.05, on_progress=seen.append)
    assert seen[-1] == job
    assert job.has_ended
    assert job.is_fine, job
    assert job.report.examined >= 3
    assert job.report.extra_copies == 0
    assert job.report.examples == ()
    assert isinstance(job.ended_at, datetime)
    assert job.created_at <= job.ended_at
    assert job.progress.parts == job.progress.parts_done
    assert await client.job(job.id) == job
    assert job in await client.jobs()
    # One that has ended is left as it is.
    assert await client.cancel_job(job.id) == job


async def test_a_job_can_be_given_up(client: AsyncMemCellClient) -> None:
    for _ in range(5):
        await client.append({"timestamp": NOON})
    slow = await client.order_job("verify", backend="local", rate=1)
    assert slow.rate == 1
    with pytest.raises(Conflict) as same:
        await client.order_job("verify", backend="local", rate=1)
    assert same.value.code == "already_exists"
    with pytest.raises(Timeout, match="it goes on"):
        await client.wait_for_job(slow.id, timeout=0.1, poll=0.05)
    await client.cancel_job(slow.id)
    job = await client.wait_for_job(slow.id, timeout=60, poll=0.05)
    assert (job.state, job.is_fine) == ("cancelled", False)


async def test_what_is_no_job(client: AsyncMemCellClient) -> None:
    for operation in (client.job, client.cancel_job):
        with pytest.raises(NotFound):
            await operation("nobody")
    for kind, backend in (("dance", None), ("verify", "elsewhere")):
        with pytest.raises(Invalid):
            await client.order_job(kind, backend=backend)
