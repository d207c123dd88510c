"""Puts the API together and serves it; the only place that constructs."""

import asyncio
import logging

from aiohttp import web

from floopy_api.core.authentication import Authenticator
from floopy_api.core.batches import BY, FAILPOINTS, Batches, BatchPorts
from floopy_api.core.customers import Customers
from floopy_api.core.files import Files
from floopy_api.core.finished import Finished
from floopy_api.core.models import Models
from floopy_api.core.refresh import Refresher
from floopy_api.core.uploads import FAILPOINTS as UPLOAD_FAILPOINTS
from floopy_api.core.uploads import UploadLimits, UploadPorts, Uploads
from floopy_api.handlers.keys import (
    AUTHENTICATOR,
    BATCHES,
    BLOBS,
    BYTES,
    FILES,
    FINISHED,
    LIMITS,
    MAX_UPLOAD,
    MODELS,
    TRAFFIC,
    UPLOADS,
)
from floopy_api.handlers.limits import Limit, Limiter, Limits
from floopy_api.handlers.routes import new_app
from floopy_api.handlers.server import Runner
from floopy_api.ports import Monotonic, Wake
from floopy_common.chassis import failpoints
from floopy_common.chassis.clock import SystemClock
from floopy_common.chassis.heap import bound_heap
from floopy_common.chassis.loop import Loop
from floopy_common.chassis.mongo import Mongo, check_schema, open_mongo
from floopy_common.chassis.outbox import OutboxRelay
from floopy_common.chassis.probes import Probes
from floopy_common.chassis.producer import open_producer
from floopy_common.chassis.runtime import service_runtime
from floopy_common.chassis.secrets import Keyring, is_api_key
from floopy_common.providers.models import BatchModels
from floopy_common.providers.pricing import PriceTable
from floopy_common.settings import ApiSettings, Settings
from floopy_common.stores.accounts import AccountStore
from floopy_common.stores.api_keys import ApiKeyStore
from floopy_common.stores.batches import BatchStore
from floopy_common.stores.blobs import BlobStore, FileReader
from floopy_common.stores.caps import CapStore
from floopy_common.stores.files import FileStore
from floopy_common.stores.orgs import OrgStore
from floopy_common.stores.provider_models import ProviderModelStore
from floopy_common.stores.read_ahead import QUICK_BATCH, QuickSeats
from floopy_common.stores.refreshing import RefreshStore
from floopy_common.stores.summaries import SummaryStore
from floopy_common.stores.uploads import UploadStore

failpoints.declare(FAILPOINTS)
failpoints.declare(UPLOAD_FAILPOINTS)

_log = logging.getLogger(__name__)
_DRAIN = 25.0
"""Seconds that requests under way get to finish in: less than what an orchestrator waits for the process."""
_CUT_OFF = 2.0
"""Seconds for writing the last answers, and for handlers that outlived even that to be cancelled."""
_LARGE = 2 * QUICK_BATCH
_SPARE = 4 * _LARGE
"""Bytes that a heap keeps at its end: with less, what quick readers use is cleared anew for each read."""
_KEEP_ALIVE = 75.0
_MAX_HEADER = 16_384
"""Bytes of one header: more than any key, so that a silly one is refused in OpenAI's words."""


async def run(settings: Settings) -> None:
    """Serve until told to stop."""
    bound_heap(large=_LARGE, spare=_SPARE)
    async with (
        service_runtime(BY, settings) as runtime,
        open_mongo(settings.mongo, BY) as mongo,
        open_producer(settings.kafka) as producer,
    ):
        await check_schema(mongo)
        probes = Probes()
        for checks in (probes.add, runtime.ready):
            checks("mongo", mongo.ping)
        relay = OutboxRelay(mongo.collection("batches"), producer, BY)
        outbox = Loop("outbox", relay.step, settings.scan.interval)
        app = compose(settings, mongo, probes, outbox.wake)
        tidy = Loop("uploads", app[UPLOADS].tidy, settings.scan.interval)
        await runtime.run(
            outbox.run(runtime.stop), tidy.run(runtime.stop), serve(app, settings.api, runtime.stop)
        )


def compose(settings: Settings, mongo: Mongo, probes: Probes, wake: Wake) -> web.Application:
    """The application with everything its handlers need."""
    clock = SystemClock()
    keyring = Keyring(settings.secret_key)
    blobs = BlobStore(mongo)
    files = FileStore(mongo)
    reader = FileReader(blobs, QuickSeats())
    hit = failpoints.Failpoints(settings.fail_at).hit
    app = new_app(probes)
    app[AUTHENTICATOR] = Authenticator(
        ApiKeyStore(mongo, keyring),
        is_well_formed=is_api_key,
        ttl=settings.api.key_cache,
        monotonic=clock.monotonic,
    )
    app[FILES] = Files(files, clock.now)
    app[BLOBS] = blobs
    app[BYTES] = reader
    app[MAX_UPLOAD] = settings.files.max_bytes
    app[UPLOADS] = Uploads(
        UploadPorts(UploadStore(mongo), files, reader),
        UploadLimits(
            max_bytes=settings.uploads.max_bytes,
            max_part_bytes=settings.uploads.max_part_bytes,
            lifetime=settings.uploads.lifetime,
            age=settings.sweep.age,
        ),
        now=clock.now,
        hit=hit,
    )
    accounts = AccountStore(mongo, keyring)
    catalogue = BatchModels(PriceTable(), settings.providers.anthropic.models)
    app[MODELS] = Models(accounts, ProviderModelStore(mongo), catalogue, now=clock.now)
    app[FINISHED] = Finished(settings.api.finished_cache, clock.monotonic)
    app[LIMITS] = _limits(settings.api, clock.monotonic)
    app[BATCHES] = Batches(
        BatchPorts(
            batches=BatchStore(mongo),
            files=files,
            pins=blobs,
            caps=CapStore(mongo),
        ),
        Customers(OrgStore(mongo), accounts, settings.api.org_cache, clock.monotonic),
        Refresher(
            RefreshStore(mongo),
            SummaryStore(mongo),
            after=settings.api.refresh_after,
            wait=settings.api.refresh_wait,
            monotonic=clock.monotonic,
        ),
        window=settings.batch.completion_window,
        now=clock.now,
        wake=wake,
        hit=hit,
    )
    return app


def _limits(settings: ApiSettings, monotonic: Monotonic) -> Limits:
    return Limits(
        uploads=Limiter(
            Limit("file uploads", settings.uploads_per_minute, settings.uploads_at_once), monotonic
        ),
        creates=Limiter(
            Limit("batch creations", settings.creates_per_minute, settings.creates_at_once), monotonic
        ),
    )


async def serve(app: web.Application, settings: ApiSettings, stop: asyncio.Event) -> None:
    """Listen until `stop`, then take nothing new and let requests under way finish."""
    runner = new_runner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        await site.start()
        _log.info("listening", extra={"event": "listening", "port": runner.addresses[0][1]})
        await stop.wait()
        await site.stop()
        # before the clean-up: from its beginning on aiohttp drops what uploads under way still send
        await app[TRAFFIC].end(_DRAIN)
    finally:
        await runner.cleanup()


def new_runner(app: web.Application) -> Runner:
    """The HTTP server around the application, not yet listening."""
    return Runner(
        app,
        access_log=None,
        shutdown_timeout=_CUT_OFF,
        keepalive_timeout=_KEEP_ALIVE,
        max_field_size=_MAX_HEADER,
        max_line_size=_MAX_HEADER,
        auto_decompress=False,  # compressed bodies are refused, so nothing must undo them first
    )
