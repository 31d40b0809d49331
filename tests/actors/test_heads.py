"""The scheduler's threads that hear new heads."""

import dataclasses
from datetime import timedelta

import pytest

from actors.broker import broker, queues
from actors.heads import watches
from ctrip.context import Context
from ctrip.database import loops
from ctrip.services.scanning import scan_chain
from tests.devchain import DevChain
from tests.waiting import wait_until

pytestmark = pytest.mark.infra


def test_a_new_block_sends_the_listeners_message_at_once_and_a_block_that_was_read_sends_none(
    ctx: Context, anvil: DevChain, redis_url: str, redis_client: object
) -> None:
    chain = dataclasses.replace(ctx.settings.chains[0], ws_urls=(anvil.url.replace("http://", "ws://"),) * 2)
    ctx = dataclasses.replace(ctx, settings=dataclasses.replace(ctx.settings, chains=(chain,)))
    broker.connect(redis_url)

    def ready() -> int:
        return queues().depths(["listener"])[0].ready

    with ctx.sessions.begin() as session:
        loops.ensure(session, kind="listener", chain_id=chain.chain_id, every=timedelta(hours=1))
    scan_chain(ctx, chain.chain_id)
    with ctx.sessions.begin() as session:
        loops.release(session, loops.Claim(f"listener:{chain.chain_id}", 1), again_in=timedelta(hours=1))
    threads = watches(ctx)
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: anvil.mine() and ready() >= 1, within_s=20, every_s=0.5, what="a message was sent")
        with ctx.sessions.begin() as session:
            assert loops.claim(session, f"listener:{chain.chain_id}") is not None, "due now, an hour early"
    finally:
        for thread in threads:
            thread.stop()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
