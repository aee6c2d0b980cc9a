"""Requests to the API server are sent once: what failed is the work queue's to try again, and to decide anew."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from ocr_finetune_operator.kube.client import Client
from ocr_finetune_operator.kube.errors import BusyError
from ocr_finetune_operator.metrics import Metrics


@pytest.mark.parametrize("code", [500, 502, 503])
def test_a_request_that_fails_is_not_sent_again(code: int) -> None:
    seen: list[str] = []

    async def refuse(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.json_response({"kind": "Status", "message": "connection refused"}, status=code)

    async def ask() -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", refuse)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        client = Client(Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}"), metrics=Metrics(), seconds=60)
        try:
            with pytest.raises(BusyError):
                await client.get("Node", "node-0")
            # The log of a pod whose node is dead: there is none, and that is known at once.
            assert await client.log_tail("p", "n", container="trainer", lines=5, limit=100) == ""
        finally:
            await client.close()
            await runner.cleanup()

    asyncio.run(asyncio.wait_for(ask(), timeout=120))
    assert len(seen) == 2
