"""A provider that only lists: `python -m benchmarks.listing_server ACCOUNTS BATCHES PORT`.

Account n, by the key `sk-poll-n`, has BATCHES open batches, the newest with the number 0. Everything is
encoded before the first call, so that a call costs next to nothing here.
"""

import json
import sys
import time

from aiohttp import web

PAGE = 100


def batch_id(account: int, number: int) -> str:
    return f"batch_{account:04d}{number:028d}"


def _batch(account: int, number: int, now: int) -> bytes:
    wire = {
        "id": batch_id(account, number),
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "model": "gpt-4o-mini-2024-07-18",
        "errors": None,
        "input_file_id": f"file-{number:022d}",
        "completion_window": "24h",
        "status": "in_progress",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": now - number // 20,
        "in_progress_at": now,
        "expires_at": now + 86_400,
        **dict.fromkeys(
            ("finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at")
        ),
        "request_counts": {"total": 100, "completed": 40, "failed": 1},
        "usage": {
            "input_tokens": 0,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 0,
        },
        "metadata": {"floopy_attempt": f"att_{number:022d}", "floopy_nonce": f"{number:010d}"},
    }
    return json.dumps(wire).encode()


class Server:
    """Answers lists and looks, and counts them."""

    def __init__(self, accounts: int, batches: int) -> None:
        now = int(time.time())
        self._batches = batches
        self._wire = {a: [_batch(a, n, now) for n in range(batches)] for a in range(accounts)}
        self.calls = {"list": 0, "get": 0}

    async def list(self, request: web.Request) -> web.Response:
        self.calls["list"] += 1
        account = _account(request)
        after = request.query.get("after")
        start = 0 if after is None else int(after[10:]) + 1
        page = self._wire[account][start : start + PAGE]
        more = b"true" if start + PAGE < self._batches else b"false"
        body = b'{"object":"list","data":[%b],"has_more":%b}' % (b",".join(page), more)
        return web.Response(body=body, content_type="application/json")

    async def get(self, request: web.Request) -> web.Response:
        self.calls["get"] += 1
        number = int(request.match_info["batch_id"][10:])
        return web.Response(body=self._wire[_account(request)][number], content_type="application/json")

    async def count(self, _: web.Request) -> web.Response:
        return web.json_response(self.calls)


def _account(request: web.Request) -> int:
    return int(request.headers["Authorization"].rpartition("-")[2])


def main() -> None:
    accounts, batches = int(sys.argv[1]), int(sys.argv[2])
    server = Server(accounts, batches)
    app = web.Application()
    app.router.add_get("/v1/batches", server.list)
    app.router.add_get("/v1/batches/{batch_id}", server.get)
    app.router.add_get("/calls", server.count)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[3]), print=None, access_log=None)


if __name__ == "__main__":
    main()
