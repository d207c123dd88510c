"""The fixtures that give a test a database of its own and a simulator of its own."""

from floopy.simulation import OwnSimulator
from floopy_common.chassis.mongo import Mongo


async def test_mongo_fixture_has_its_schema(mongo: Mongo) -> None:
    assert await mongo.collection("meta").find_one({"_id": "schema"}) is not None


async def test_simulator_fixture_can_be_scripted(simulator: OwnSimulator) -> None:
    fault = await simulator.fault("models.list", {"kind": "status", "status": 500}, times=2)

    assert (await simulator.fault_state(fault))["hits"] == 0
    assert await simulator.batches() == []
    assert await simulator.executions() == []


async def test_simulator_goes_on_after_a_kill(simulator: OwnSimulator) -> None:
    await simulator.advance_clock(3600)
    simulator.kill()
    simulator.start()

    assert await simulator.calls("batches.create") == []
    assert simulator.stop() == 0
