"""The barest API there could be, as a limit: a fixed answer, and one look-up of one document.

python -m benchmarks.bare_server MONGO_URI DATABASE BATCH_ID
"""

import asyncio
import sys

from aiohttp import web

from floopy_common.chassis.mongo import open_mongo
from floopy_common.settings import MongoSettings

_ANSWER = b'{"object":"batch"}'.ljust(1_500)
"""As long as a batch's."""


async def serve(uri: str, database: str, batch_id: str) -> None:
    async with open_mongo(MongoSettings(uri=uri, database=database), "bench") as mongo:
        batches = mongo.collection("batches")

        async def fixed(_: web.Request) -> web.Response:
            return web.Response(body=_ANSWER, content_type="application/json")

        async def found(_: web.Request) -> web.Response:
            await batches.find_one({"_id": batch_id})
            return web.Response(body=_ANSWER, content_type="application/json")

        app = web.Application()
        app.router.add_get("/fixed", fixed)
        app.router.add_get("/found", found)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sys.stdout.write(f"{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
