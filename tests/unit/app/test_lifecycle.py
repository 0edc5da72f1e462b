"""The lifecycle of one server process."""

from server.app.lifecycle import Lifecycle


async def test_a_server_takes_traffic_between_its_start_and_its_drain() -> None:
    seen: list[object] = []

    async def end_work(seconds: float) -> None:
        seen.extend((lifecycle.phase, seconds))

    lifecycle = Lifecycle(on_drain=end_work)
    seen.append(lifecycle.phase)
    lifecycle.started()
    seen.append(lifecycle.phase)
    await lifecycle.drain(30)
    assert seen == ["starting", "running", "draining", 30]  # unready before the running turns end
