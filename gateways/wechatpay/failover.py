"""WeChat Pay's disaster-recovery host, for when the main one cannot be reached."""

from typing import Final

import httpx

MAIN_HOST: Final = "api.mch.weixin.qq.com"
RECOVERY_HOST: Final = "api2.mch.weixin.qq.com"


class Failover(httpx.AsyncBaseTransport):
    """Sends a request to the recovery host when no connection to the main one came about.

    Only then: a request that was sent may have taken effect. The signature covers the path and
    not the host, so the same signed request serves both.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._inner.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if request.url.host != MAIN_HOST:
                raise
        again = httpx.Request(
            request.method,
            request.url.copy_with(host=RECOVERY_HOST),
            headers={**request.headers, "host": RECOVERY_HOST},
            stream=request.stream,
            extensions=request.extensions,
        )
        return await self._inner.handle_async_request(again)

    async def aclose(self) -> None:
        await self._inner.aclose()
