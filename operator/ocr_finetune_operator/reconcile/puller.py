"""Pulls the progress of a training from its first pod: short, small, checked, and never with credentials."""

from __future__ import annotations

import aiohttp
from pydantic import ValidationError

from ocr_finetune_api.progress import MAX_BYTES, Progress


class PullError(Exception):
    """The progress could not be had; says nothing about the training."""


class Puller:
    """One connection pool to the pods; it follows no redirects and uses no proxy."""

    def __init__(self, *, port: int, seconds: float) -> None:
        self._port = port
        self._timeout = aiohttp.ClientTimeout(total=seconds)
        self._session: aiohttp.ClientSession | None = None

    async def pull(self, ip: str) -> Progress:
        """The progress document of the pod with this address.

        Raises:
            PullError: It can't be reached, or what it says is no progress document.
        """
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=64, force_close=True)
            self._session = aiohttp.ClientSession(timeout=self._timeout, connector=connector, trust_env=False)
        host = f"[{ip}]" if ":" in ip else ip
        try:
            async with self._session.get(
                f"http://{host}:{self._port}/progress", allow_redirects=False, headers={"Accept": "application/json"}
            ) as answer:
                if answer.status != 200:
                    raise PullError(f"/progress answered {answer.status}")
                data = await answer.content.read(MAX_BYTES + 1)
                while len(data) <= MAX_BYTES and (more := await answer.content.read(MAX_BYTES + 1 - len(data))):
                    data += more
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise PullError(f"rank 0 can't be reached: {type(error).__name__}") from error
        if len(data) > MAX_BYTES:
            raise PullError(f"/progress is longer than {MAX_BYTES} bytes")
        try:
            return Progress.model_validate_json(data)
        except (ValidationError, ValueError) as error:
            raise PullError("/progress holds no progress document of a version known here") from error

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()
