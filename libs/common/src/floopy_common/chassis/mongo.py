"""MongoDB behind one module: the only one that imports the driver, so that replacing it is one file."""

import copy
import itertools
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import Any, TypedDict, cast

from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ReplaceOne, ReturnDocument, UpdateOne, WriteConcern
from pymongo.errors import (
    BulkWriteError,
    DuplicateKeyError,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    WriteError,
)
from pymongo.read_concern import ReadConcern

from floopy_common.chassis.merging import ABOUT_ONE, Find, Merger, equalities, hand_out, merge_finds, showing
from floopy_common.collections import COLLECTIONS, SCHEMA_VERSION, CollectionSpec
from floopy_common.domain.errors import FloopyError, Transient
from floopy_common.settings import MongoSettings

Document = dict[str, Any]
Filter = Mapping[str, Any]
Update = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Sort = Sequence[tuple[str, int]]

_DUPLICATE_KEY = 11000
_OTHER_INDEX = frozenset({85, 86})
"""IndexOptionsConflict, IndexKeySpecsConflict: an index of this name is there with other keys or options."""
_NO_INDEX = frozenset({26, 27})
"""NamespaceNotFound, IndexNotFound: what was to be dropped is not there."""

DatabaseError = PyMongoError
"""What any call here may raise when the database cannot answer."""


class StandaloneRefused(FloopyError):  # noqa: N818 - says what happened
    """The server is no replica set, so majority reads and writes promise nothing."""


class SchemaTooNew(FloopyError):  # noqa: N818 - says what happened
    """The database was migrated by a newer major version."""


_STAMPS = "stamps"
"""Of every document that merged updates changed: says which of them did so last."""
_STAMPS_KEPT = 4 * ABOUT_ONE
"""As many as one process may have on their way to one document: two calls of durable ones, two of others."""
_stamps = (f"{secrets.token_hex(6)}{number:x}" for number in itertools.count())


@dataclass(frozen=True, slots=True)
class _Change:
    """An update of the document whose `_id` is in the filter, and whether it is wanted afterwards."""

    filter: Filter
    update: Update
    projection: Mapping[str, Any] | None = None
    is_wanted: bool = False

    def stamped(self, stamp: str) -> UpdateOne:
        if isinstance(self.update, Mapping):
            pushed = {"$each": [stamp], "$slice": -_STAMPS_KEPT}
            return UpdateOne(
                self.filter, {**self.update, "$push": {**self.update.get("$push", {}), _STAMPS: pushed}}
            )
        grown = {"$concatArrays": [{"$ifNull": [f"${_STAMPS}", []]}, [{"$literal": stamp}]]}
        return UpdateOne(self.filter, [*self.update, {"$set": {_STAMPS: {"$slice": [grown, -_STAMPS_KEPT]}}}])


class _Patience(TypedDict):
    within: float | None
    late: type[NetworkTimeout]


class Collection:
    """One collection: the calls the stores need, with duplicates told apart from failures.

    Calls that are made side by side are merged (`chassis/merging.py`): finding by equality, inserting one,
    updating one by its `_id`, with or without inserting it. Nobody sees a difference but in time.
    """

    def __init__(self, raw: Any, spec: CollectionSpec, within: float | None = None) -> None:
        """`within`: seconds after which who waits for a merged call is told that nobody answers."""
        self._raw = raw
        self._soft = raw.with_options(write_concern=WriteConcern(w=1), read_concern=ReadConcern("local"))
        self._spec = spec
        patience: _Patience = {"within": within, "late": NetworkTimeout}
        self._finds: Merger[Find, list[Document]] = Merger(DatabaseError, **patience)
        self._inserts: Merger[Document, bool] = Merger(DatabaseError, **patience)
        self._upserts: Merger[_Change, bool] = Merger(DatabaseError, **patience)
        self._changes: Merger[_Change, Document | bool | None] = Merger(DatabaseError, **patience)

    @property
    def name(self) -> str:
        return self._spec.name

    async def find_one(
        self, filter: Filter, projection: Mapping[str, Any] | None = None, sort: Sort | None = None
    ) -> Document | None:
        if sort is None and "_id" in equalities(filter, projection):
            found = await self._find_merged(self._raw, filter, projection, None)
            return found[0] if found else None
        return cast("Document | None", await self._raw.find_one(filter, projection, sort=sort))

    async def find(
        self,
        filter: Filter,
        projection: Mapping[str, Any] | None = None,
        sort: Sort | None = None,
        limit: int = 0,
        batch_size: int = 0,
    ) -> AsyncGenerator[Document, None]:
        cursor = self._raw.find(filter, projection, sort=sort, limit=limit, batch_size=batch_size)
        try:
            async for document in cursor:
                yield document
        finally:
            await cursor.close()

    async def find_all(
        self,
        filter: Filter,
        projection: Mapping[str, Any] | None = None,
        sort: Sort | None = None,
        limit: int = 0,
        *,
        durable: bool = True,
    ) -> list[Document]:
        """Not `durable`: with writes that a failover may take back. Fit for finding what to claim."""
        raw = self._raw if durable else self._soft
        if limit == 0:
            return await self._find_merged(raw, filter, projection, sort)
        cursor = raw.find(filter, projection, sort=sort, limit=limit)
        return cast("list[Document]", await cursor.to_list(None))

    async def _find_merged(
        self, raw: Any, filter: Filter, projection: Mapping[str, Any] | None, sort: Sort | None
    ) -> list[Document]:
        wanted = equalities(filter, projection)
        rest = {name: value for name, value in filter.items() if name not in wanted}

        async def find(finds: Sequence[Find]) -> list[list[Document]]:
            conditions, apart = merge_finds(finds)
            cursor = raw.find({**conditions, **rest}, showing(projection, apart), sort=sort)
            return hand_out(await cursor.to_list(None), finds, apart)

        if not wanted:
            return (await find([Find({})]))[0]
        name = (raw is self._raw, tuple(wanted), repr(rest), repr(projection), repr(sort))
        return await self._finds.ask(name, Find(wanted), find)

    async def insert_new(self, document: Document) -> bool:
        """Insert; False when the `_id` or another unique value is there already."""
        return await self._inserts.ask(None, document, self._insert_merged)

    async def _insert_merged(self, documents: list[Document]) -> list[bool | Exception]:
        return await _done(self._raw.insert_many(documents, ordered=False), len(documents))

    async def insert_missing(self, documents: Sequence[Document]) -> set[int]:
        """Insert those not there yet, in any order; the positions of the others. Any other failure raises."""
        if not documents:
            return set()
        try:
            await self._raw.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            details = error.details or {}
            failures = details.get("writeErrors", [])
            if details.get("writeConcernErrors") or any(f["code"] != _DUPLICATE_KEY for f in failures):
                raise
            return {failure["index"] for failure in failures}
        return set()

    async def insert_many(self, documents: Sequence[Document]) -> None:
        """Insert all, in any order; a duplicate raises."""
        if documents:
            await self._raw.insert_many(documents, ordered=False)

    async def update_one(self, filter: Filter, update: Update, *, durable: bool = True) -> int:
        """How many documents matched: 0 or 1. `durable` as in `find_and_update`."""
        if type(filter.get("_id")) is str:
            return int(bool(await self._change(_Change(filter, update), durable)))
        raw = self._raw if durable else self._soft
        return cast("int", (await raw.update_one(filter, update)).matched_count)

    async def update_each(self, updates: Sequence[tuple[Filter, Update]]) -> None:
        """As many updates of one document each, in any order, by one call."""
        if updates:
            calls = [UpdateOne(wanted, cast("Any", update)) for wanted, update in updates]
            await self._raw.bulk_write(calls, ordered=False)

    async def update_many(self, filter: Filter, update: Update) -> int:
        return cast("int", (await self._raw.update_many(filter, update)).matched_count)

    async def find_and_update(
        self,
        filter: Filter,
        update: Update,
        sort: Sort | None = None,
        projection: Mapping[str, Any] | None = None,
        *,
        durable: bool = True,
    ) -> Document | None:
        """Update one document and return it as it is afterwards; None when nothing matched.

        Not `durable`: the primary alone has to know it, and a failover may take it back. Fit for leases,
        whose token is then missing from the holder's next write, and for when something is due; nothing else.
        """
        if sort is None and type(filter.get("_id")) is str and "_id" in equalities(filter, projection):
            change = _Change(filter, update, projection, is_wanted=True)
            return cast("Document | None", await self._change(change, durable))
        raw = self._raw if durable else self._soft
        found = await raw.find_one_and_update(
            filter, update, sort=sort, projection=projection, return_document=ReturnDocument.AFTER
        )
        return cast("Document | None", found)

    async def _change(self, change: _Change, durable: bool) -> Document | bool | None:
        raw = self._raw if durable else self._soft

        async def run(changes: list[_Change]) -> Sequence[Document | bool | Exception | None]:
            return await _changed(raw, changes)

        return await self._changes.ask(durable, change, run, subject=change.filter["_id"])

    async def replace(self, filter: Filter, document: Document, *, upsert: bool = False) -> int:
        """How many documents matched; with `upsert` the document is there afterwards either way."""
        result = await self._raw.replace_one(filter, document, upsert=upsert)
        return cast("int", result.matched_count)

    async def replace_each(self, documents: Sequence[Document]) -> None:
        """Put each in the place of whatever has its `_id`, in any order, by one call."""
        if documents:
            calls = [ReplaceOne({"_id": document["_id"]}, document, upsert=True) for document in documents]
            await self._raw.bulk_write(calls, ordered=False)

    async def upsert(self, filter: Filter, update: Update) -> bool:
        """Update or insert one document; False when another writer's unique value stood in the way."""
        subject = filter["_id"] if type(filter.get("_id")) is str else None
        return await self._upserts.ask(None, _Change(filter, update), self._upsert_merged, subject)

    async def _upsert_merged(self, changes: list[_Change]) -> list[bool | Exception]:
        calls = [UpdateOne(change.filter, cast("Any", change.update), upsert=True) for change in changes]
        return await _done(self._raw.bulk_write(calls, ordered=False), len(calls))

    async def delete_one(self, filter: Filter) -> int:
        return cast("int", (await self._raw.delete_one(filter)).deleted_count)

    async def delete_many(self, filter: Filter) -> int:
        return cast("int", (await self._raw.delete_many(filter)).deleted_count)

    async def count(self, filter: Filter) -> int:
        return cast("int", await self._raw.count_documents(filter))

    async def aggregate(self, pipeline: Sequence[Mapping[str, Any]]) -> list[Document]:
        return cast("list[Document]", await self._raw.aggregate(pipeline).to_list(None))

    async def ensure_indexes(self) -> None:
        """Create what `collections.py` declares, drop what it names as retired; repeat as you like."""
        for index in self._spec.indexes:
            options = {key: value for key, value in index.options.items()}  # noqa: C416 - a copy the driver may change
            try:
                await self._raw.create_index(list(index.keys), name=index.name, **options)
            except OperationFailure as error:
                if error.code not in _OTHER_INDEX:
                    raise
                # an earlier release declared it differently: a server keeps what it has until it is dropped
                await self._raw.drop_index(index.name)
                await self._raw.create_index(list(index.keys), name=index.name, **options)
        # last, so that there is no moment without a unique index
        for name in self._spec.retired:
            await self._drop_index(name)

    async def _drop_index(self, name: str) -> None:
        try:
            await self._raw.drop_index(name)
        except OperationFailure as error:
            if error.code not in _NO_INDEX:
                raise


async def _done(bulk: Awaitable[object], count: int) -> list[bool | Exception]:
    """Of each write of a bulk call whether it happened (a unique value was there if not) or its failure."""
    answers: list[bool | Exception] = [True] * count
    try:
        await bulk
    except BulkWriteError as error:
        for number, failure in _failures(error).items():
            answers[number] = False if isinstance(failure, DuplicateKeyError) else failure
    return answers


async def _changed(raw: Any, changes: Sequence[_Change]) -> list[Document | bool | Exception | None]:
    """Of each change the document afterwards where it is wanted, else whether it matched; or what failed."""
    if len(changes) == 1:
        return [await _changed_alone(raw, changes[0])]
    stamps = [next(_stamps) for _ in changes]
    failed: dict[int, WriteError] = {}
    try:
        calls = [change.stamped(stamp) for change, stamp in zip(changes, stamps, strict=True)]
        matched = (await raw.bulk_write(calls, ordered=False)).matched_count
    except BulkWriteError as error:
        failed = _failures(error)
        matched = (error.details or {})["nMatched"]
    # the server says how many matched, not which: only where some did not, each has to show its stamp
    all_matched = matched == len(changes) - len(failed)
    try:
        seen = await _read_back(raw, changes, all_matched)
    except Exception as error:  # noqa: BLE001 - an answer: raised, it would say that nothing was sent
        return [error] * len(changes)
    answers: list[Document | bool | Exception | None] = []
    for number, (change, stamp) in enumerate(zip(changes, stamps, strict=True)):
        document = seen.get(number)
        is_ours = document is not None and stamp in document.pop(_STAMPS, ())
        if number in failed:
            answers.append(failed[number])
        elif change.is_wanted:
            answers.append(document if all_matched or is_ours else None)
        else:
            answers.append(all_matched or is_ours)
    return answers


async def _changed_alone(raw: Any, change: _Change) -> Document | bool | None:
    if not change.is_wanted:
        return bool((await raw.update_one(change.filter, change.update)).matched_count)
    found = await raw.find_one_and_update(
        change.filter,
        change.update,
        projection=change.projection,
        return_document=ReturnDocument.AFTER,
    )
    return cast("Document | None", found)


async def _read_back(raw: Any, changes: Sequence[_Change], all_matched: bool) -> dict[int, Document]:
    """The changed documents that are wanted, all of them where not all matched, by their change's number."""
    groups: dict[str, list[int]] = {}
    for number, change in enumerate(changes):
        if change.is_wanted or not all_matched:
            shown = change.projection if change.is_wanted else {_STAMPS: 1}
            groups.setdefault(repr(shown), []).append(number)
    seen: dict[int, Document] = {}
    for numbers in groups.values():
        first = changes[numbers[0]]
        shown = first.projection if first.is_wanted else {_STAMPS: 1}
        ids: dict[str, list[int]] = {}
        for number in numbers:
            ids.setdefault(changes[number].filter["_id"], []).append(number)
        for document in await raw.find({"_id": {"$in": list(ids)}}, showing(shown, [_STAMPS])).to_list(None):
            for number in ids[document["_id"]]:
                seen[number] = copy.deepcopy(document) if len(ids[document["_id"]]) > 1 else document
    return seen


def _failures(error: BulkWriteError) -> dict[int, WriteError]:
    """What single writes of a bulk call failed with, by position; an error that is about all is raised."""
    details = error.details or {}
    if details.get("writeConcernErrors"):
        raise error
    return {
        failure["index"]: (DuplicateKeyError if failure["code"] == _DUPLICATE_KEY else WriteError)(
            failure["errmsg"], failure["code"], failure
        )
        for failure in details["writeErrors"]
    }


class Mongo:
    """An open connection to one database."""

    def __init__(self, client: Any, database: str, within: float | None = None) -> None:
        """`within` as in `Collection`."""
        self._client = client
        self._within = within
        options: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)
        self._database = client.get_database(
            database,
            codec_options=options,
            write_concern=WriteConcern(w="majority", j=True),
            read_concern=ReadConcern("majority"),
        )
        self._collections: dict[str, Collection] = {}

    def collection(self, name: str) -> Collection:
        """The collection declared under `name`; KeyError for an undeclared one."""
        if name not in self._collections:
            # one for all stores, whose calls are to meet
            self._collections[name] = Collection(self._database[name], COLLECTIONS[name], self._within)
        return self._collections[name]

    async def ping(self) -> bool:
        """True when the primary answers."""
        await self._client.admin.command("ping")
        return True


@asynccontextmanager
async def open_mongo(settings: MongoSettings, app_name: str) -> AsyncIterator[Mongo]:
    """Connect; StandaloneRefused unless the server belongs to a replica set, Transient when none answers."""
    client: Any = AsyncIOMotorClient(
        settings.uri,
        appname=app_name,
        maxPoolSize=settings.max_pool_size,
        serverSelectionTimeoutMS=int(settings.timeout * 1000),
        socketTimeoutMS=int(settings.timeout * 1000),
        retryWrites=True,
        retryReads=True,
        maxIdleTimeMS=60_000,
    )
    try:
        try:
            hello = await client.admin.command("hello")
        except PyMongoError as error:
            raise Transient(f"MongoDB does not answer: {error}") from error
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise StandaloneRefused("a MongoDB replica set is required; this server is a standalone")
        # as long as the driver may take by itself: a try that nobody answers, and finding nobody to repeat it
        yield Mongo(client, settings.database, 2 * settings.timeout)
    finally:
        client.close()


async def ensure_indexes(mongo: Mongo) -> None:
    """Create every declared index and record the schema version; repeat as often as you like."""
    for name in COLLECTIONS:
        await mongo.collection(name).ensure_indexes()
    await mongo.collection("meta").upsert({"_id": "schema"}, {"$max": {"version": SCHEMA_VERSION}})


async def check_schema(mongo: Mongo) -> None:
    """Raise SchemaTooNew when a newer major version has migrated this database."""
    meta = await mongo.collection("meta").find_one({"_id": "schema"})
    if meta is not None and meta["version"] > SCHEMA_VERSION:
        raise SchemaTooNew(f"the database has schema {meta['version']}, this program knows {SCHEMA_VERSION}")
