#!/usr/bin/env python3
"""Checks the machine tool counterpart with asyncua's own client: `check_opcua_machine_tool.py [NAME...]`.

Starts a server for each check, steers it through its standard input, and reports what failed. Run it
after a change to the counterpart, so that a failing test of the adapter can be laid at the adapter's door.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import tempfile
import time
import traceback
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, AsyncIterator, Awaitable, Callable, Optional

from asyncua import Client, Node, ua
from asyncua.crypto.cert_gen import generate_private_key, generate_self_signed_app_certificate
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from opcua_space import DI, IA, ISA95_V1, ISA95_V2, JOBS, MACHINE_TOOL, MACHINERY, SHOP
from opcua_space import register_isa95_structures

SERVER = Path(__file__).with_name("opcua_machine_tool.py")
PATIENCE_S = 30.0

checks: list[Callable[[], Awaitable[None]]] = []
ready_times: list[tuple[str, float]] = []


def check(function: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    checks.append(function)
    return function


# --- the counterpart as a child process -----------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Counterpart:
    """A running server, what it has said, and the means to tell it something."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.url = f"opc.tcp://127.0.0.1:{port}/millpool"
        self.said: list[str] = []

    async def hear(self) -> str:
        line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE_S)
        if not line:
            raise EOFError("the server has ended")
        self.said.append(line.decode().rstrip("\n"))
        return self.said[-1]

    async def hear_until(self, start: str) -> str:
        """The next line that starts so, counting those that came while waiting for something else."""
        for line in self.said:
            if line.startswith(start):
                return line
        while not (line := await self.hear()).startswith(start):
            pass
        return line

    async def tell(self, do: str, **arguments: Any) -> str:
        """Gives a command and returns the answer."""
        self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        while (line := await self.hear()) != "DONE" and not line.startswith("ERROR"):
            pass
        return line

    async def must(self, do: str, **arguments: Any) -> None:
        answer = await self.tell(do, **arguments)
        assert answer == "DONE", f"{do}: {answer}"


@asynccontextmanager
async def counterpart(*arguments: str) -> AsyncIterator[Counterpart]:
    port = free_port()
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SERVER),
        "--port",
        str(port),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    server = Counterpart(process, port)
    try:
        assert await server.hear() == "READY"
        ready_times.append((" ".join(arguments) or "(defaults)", time.monotonic() - started))
        yield server
    finally:
        if process.returncode is None:
            process.stdin.close()
            code = await asyncio.wait_for(process.wait(), PATIENCE_S)
            assert code == 0, f"exit code {code}"


# --- the client's side ----------------------------------------------------------------------------


class Shop:
    """A client, and the namespaces of the server that it is connected to."""

    def __init__(self, client: Client, namespaces: list[str]) -> None:
        self.client = client
        self.namespaces = namespaces

    def index(self, uri: str) -> int:
        return self.namespaces.index(uri)

    def standard(self, uri: str, identifier: int) -> ua.NodeId:
        return ua.NodeId(identifier, self.index(uri))

    def node(self, path: str, machine: str = "5AX-01") -> Node:
        return self.client.get_node(ua.NodeId(f"{machine}.{path}", self.index(SHOP)))

    async def browse(self, start: Node, *path: tuple[Optional[str], str]) -> Node:
        names = [ua.QualifiedName(name, self.index(uri) if uri else 0) for uri, name in path]
        return await start.get_child(names)

    async def machines(self) -> list[Node]:
        folder = self.client.get_node(self.standard(MACHINERY, 1001))
        return [m for m in await folder.get_children() if await self.is_machine_tool(m)]

    async def is_machine_tool(self, item: Node) -> bool:
        type_node = self.client.get_node(await item.read_type_definition())
        while True:
            if type_node.nodeid == self.standard(MACHINE_TOOL, 13):
                return True
            above = await type_node.get_referenced_nodes(
                ua.ObjectIds.HasSubtype, ua.BrowseDirection.Inverse
            )
            if not above:
                return False
            type_node = above[0]

    async def state_of(self, state_machine: Node) -> tuple[str, ua.NodeId]:
        current = await state_machine.get_child("0:CurrentState")
        return (await current.read_value()).Text, await (await current.get_child("0:Id")).read_value()

    async def call(self, method: str, *arguments: ua.Variant, machine: str = "5AX-01") -> int:
        control = self.node("MachineryBuildingBlocks.JobManagement.JobOrderControl", machine)
        name = ua.QualifiedName(method, self.index(ISA95_V2))
        return await control.call_method(name, *arguments)

    async def command(self, method: str, job: str) -> int:
        return await self.call(method, ua.Variant(job, ua.VariantType.String), no_comment())

    async def store(self, order: Any, method: str = "Store") -> int:
        return await self.call(method, ua.Variant(order, ua.VariantType.ExtensionObject), no_comment())

    async def job_list(self) -> list[Any]:
        control = "MachineryBuildingBlocks.JobManagement.JobOrderControl"
        return await self.node(f"{control}.JobOrderList").read_value() or []

    async def job_states(self) -> dict[str, int]:
        return {e.JobOrder.JobOrderID: e.State[0].StateNumber for e in await self.job_list()}

    async def wait_for_state(self, job: str, state: int) -> None:
        await eventually(lambda: self.job_states(), lambda states: states.get(job) == state)


@asynccontextmanager
async def connected(server: Counterpart, timeout_ms: int = 60_000) -> AsyncIterator[Shop]:
    client = Client(server.url, timeout=10)
    client.session_timeout = timeout_ms
    async with client:
        yield await shop_of(client)


async def shop_of(client: Client) -> Shop:
    shop = Shop(client, await client.get_namespace_array())
    if ISA95_V2 in shop.namespaces:
        await register_isa95_structures(client, shop.index(ISA95_V2))
    return shop


def no_comment() -> ua.Variant:
    return ua.Variant([], ua.VariantType.LocalizedText, is_array=True)


def order(job: str, priority: int = 0, program: Optional[str] = None) -> Any:
    made = ua.ISA95JobOrderDataType()
    made.JobOrderID = job
    made.Priority = priority
    if program is not None:
        master = ua.ISA95WorkMasterDataType()
        master.ID = program
        made.WorkMasterID = [master]
    return made


async def eventually(read: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not holds(value := await read()):
        assert time.monotonic() < end, f"still {value}"
        await asyncio.sleep(0.05)
    return value


async def expect_status(name: str, attempt: Awaitable[Any]) -> None:
    try:
        await attempt
    except ua.UaStatusCodeError as error:
        assert ua.StatusCode(error.code).name == name, f"{error} instead of {name}"
    else:
        raise AssertionError(f"went through instead of {name}")


class Changes:
    """What a subscription has brought."""

    def __init__(self) -> None:
        self.values: list[ua.DataValue] = []

    def datachange_notification(self, _node: Node, _value: Any, data: Any) -> None:
        self.values.append(data.monitored_item.Value)

    async def wait_for(self, holds: Callable[[ua.DataValue], bool]) -> None:
        async def seen() -> list[ua.DataValue]:
            return self.values

        await eventually(seen, lambda values: any(map(holds, values)))


# --- what is there --------------------------------------------------------------------------------


async def _look_around(server: Counterpart, generation: str) -> None:
    async with connected(server) as shop:
        machines = await shop.machines()
        assert [(await m.read_browse_name()).Name for m in machines] == ["5AX-01"]
        machine = machines[0]
        blocks = await shop.browse(machine, (MACHINERY, "MachineryBuildingBlocks"))
        item = await shop.browse(blocks, (MACHINERY, "MachineryItemState"))
        mode = await shop.browse(blocks, (MACHINERY, "MachineryOperationMode"))
        assert await shop.state_of(item) == ("NotExecuting", shop.standard(MACHINERY, 5007))
        assert await shop.state_of(mode) == ("Processing", shop.standard(MACHINE_TOOL, 5060))
        again = await shop.browse(
            machine, (MACHINE_TOOL, "Monitoring"), (MACHINE_TOOL, "MachineTool"), (MACHINERY, "MachineryItemState")
        )
        assert again == item, "the AddIn is one object"
        numbers = [r for r in await (await item.get_child("0:CurrentState")).get_children()]
        names = {(await n.read_browse_name()).Name for n in numbers}
        assert ("Number" in names) == (generation == "1.02")
        name = await shop.browse(machine, (DI, "Identification"), (DI, "Manufacturer"))
        assert (await name.read_value()).Text == "Example Works"
        lights = await shop.browse(machine, (MACHINE_TOOL, "Monitoring"), (MACHINE_TOOL, "Stacklight"))
        assert len(await lights.get_children(ua.ObjectIds.HasOrderedComponent)) == 3
        power = shop.node("Monitoring.AcActivePowerTotal")
        assert (await (await power.get_child("0:EngineeringUnits")).read_value()).UnitId == 4937556
        energy = shop.node("Monitoring.AcActiveEnergyTotalImportHp")
        assert (await (await energy.get_child("0:EngineeringUnits")).read_value()).UnitId == 4937544
        control = "MachineryBuildingBlocks.JobManagement.JobOrderControl"
        if generation == "1.02":
            assert await shop.node(f"{control}.MaxDownloadableJobOrders").read_value() == 8
        else:
            assert ISA95_V2 not in shop.namespaces and JOBS not in shop.namespaces
        await _check_versions(shop, generation)


async def _check_versions(shop: Shop, generation: str) -> None:
    versions = {}
    for description in await shop.client.nodes.namespaces.get_children():
        version = await description.get_child("0:NamespaceVersion")
        uri = await (await description.get_child("0:NamespaceUri")).read_value()
        versions[uri] = await version.read_value()
    expected = {
        "1.01": {DI: "1.04.0", IA: "1.01.2", MACHINERY: "1.02.0", MACHINE_TOOL: "1.01.1"},
        "1.02": {
            DI: "1.05.0",
            IA: "1.01.4",
            MACHINERY: "1.04.1",
            ISA95_V2: "2.0.0",
            JOBS: "1.0.1",
            MACHINE_TOOL: "1.02.0",
        },
    }[generation]
    for uri, version in expected.items():
        assert versions.get(uri) == version, f"{uri}: {versions.get(uri)}"


@check
async def newer_generation() -> None:
    async with counterpart() as server:
        await _look_around(server, "1.02")


@check
async def newer_generation_without_cache() -> None:
    async with counterpart("--no-cache") as server:
        await _look_around(server, "1.02")


@check
async def newer_generation_shifted() -> None:
    async with counterpart("--extra-namespaces", "3") as server:
        await _look_around(server, "1.02")
        await server.must("namespaces")
        said = await server.hear_until("NAMESPACES ")
        uris = json.loads(said.removeprefix("NAMESPACES "))
        assert uris.index(DI) == 5 and uris[2] == "urn:example:unrelated:1"


@check
async def older_generation() -> None:
    async with counterpart("--generation", "1.01") as server:
        await _look_around(server, "1.01")


@check
async def older_generation_without_cache() -> None:
    async with counterpart("--generation", "1.01", "--no-cache") as server:
        await _look_around(server, "1.01")


@check
async def older_generation_shifted() -> None:
    async with counterpart("--generation", "1.01", "--extra-namespaces", "2") as server:
        await _look_around(server, "1.01")


@check
async def several_machines_of_a_derived_type() -> None:
    arguments = ("--machines", "A,B", "--vendor-type", "--foreign-item")
    async with counterpart(*arguments) as server, connected(server) as shop:
        assert len(await shop.client.get_node(shop.standard(MACHINERY, 1001)).get_children()) == 3
        assert len(await shop.machines()) == 2
        await server.must("item", machine="B", state="Executing")
        state = "MachineryBuildingBlocks.MachineryItemState"
        assert (await shop.state_of(shop.node(state, "A")))[0] == "NotExecuting"
        assert (await shop.state_of(shop.node(state, "B")))[0] == "Executing"


@check
async def bare_machine() -> None:
    arguments = ("--item-state", "no", "--jobs", "none", "--vendor-nodes", "no")
    async with counterpart(*arguments) as server, connected(server) as shop:
        blocks = shop.node("MachineryBuildingBlocks")
        assert await blocks.get_children() == []
        assert await shop.node("Monitoring.MachineTool.OperationMode").read_value() == 1
        names = [(await c.read_browse_name()).Name for c in await shop.node("Monitoring").get_children()]
        assert "AcActivePowerTotal" not in names and "Spindle1" in names


# --- what can be steered --------------------------------------------------------------------------


@check
async def states_follow_commands() -> None:
    async with counterpart("--extra-namespaces", "1") as server, connected(server) as shop:
        item = shop.node("MachineryBuildingBlocks.MachineryItemState")
        for state, identifier in (("NotAvailable", 5005), ("OutOfService", 5004), ("Executing", 5006)):
            await server.must("item", machine="5AX-01", state=state)
            assert await shop.state_of(item) == (state, shop.standard(MACHINERY, identifier))
        await server.must("mode", machine="5AX-01", mode="Setup")
        mode = shop.node("MachineryBuildingBlocks.MachineryOperationMode")
        assert await shop.state_of(mode) == ("Setup", shop.standard(MACHINE_TOOL, 5061))
        await server.must("tool_mode", machine="5AX-01", mode=4)
        assert await shop.node("Monitoring.MachineTool.OperationMode").read_value() == 4
        await server.must("program", machine="5AX-01", name="O1234", state="Interrupted")
        program = shop.node("Production.ActiveProgram")
        assert await shop.node("Production.ActiveProgram.Name").read_value() == "O1234"
        state = await shop.browse(program, (MACHINE_TOOL, "State"))
        assert await shop.state_of(state) == ("Interrupted", shop.standard(MACHINE_TOOL, 5040))
        assert await shop.node("Production.ActiveProgram.State.CurrentState.Number").read_value() == 3
        await server.must("stack_light", machine="5AX-01", light="red", on=True, mode="blinking")
        assert await shop.node("Monitoring.Stacklight.Red.SignalOn").read_value() is True


@check
async def wrong_commands_are_answered() -> None:
    async with counterpart() as server:
        for do, arguments in (
            ("nonsense", {}),
            ("item", {"machine": "5AX-01", "state": "Broken"}),
            ("item", {"machine": "nowhere", "state": "Executing"}),
            ("set", {"node": "5AX-01.Monitoring.Nothing", "value": 1}),
            ("set", {"node": "5AX-01.Production.PartCount", "value": "many"}),
            ("set", {"node": "5AX-01.Production.PartCount", "value": 1.5}),
            ("bad", {"node": "5AX-01.Production.PartCount", "status": "Good"}),
            ("finish_job", {"machine": "5AX-01", "id": "none"}),
        ):
            assert (await server.tell(do, **arguments)).startswith("ERROR "), do
        await server.must("run_jobs", on=True)


@check
async def values_and_statuses_are_published() -> None:
    async with counterpart() as server, connected(server) as shop:
        load, changes = shop.node("Monitoring.Spindle1.Load"), Changes()
        subscription = await shop.client.create_subscription(100, changes)
        await subscription.deadband_monitor(load, 0.5)
        name = f"nsu={SHOP};s=5AX-01.Monitoring.Spindle1.Load"
        await server.must("set", node=name, value=42)
        await changes.wait_for(lambda v: v.Value is not None and v.Value.Value == 42.0)
        await server.must("bad", node="5AX-01.Monitoring.Spindle1.Load", status="BadCommunicationError")
        await changes.wait_for(lambda v: v.StatusCode.name == "BadCommunicationError")
        await server.must("set", node=name, value=7.5)
        await changes.wait_for(lambda v: v.Value is not None and v.Value.Value == 7.5)
        count = await shop.node("Production.PartCount").read_data_value()
        assert count.Value.VariantType == ua.VariantType.UInt32 and count.SourceTimestamp is not None


@check
async def clients_may_not_write() -> None:
    async with counterpart() as server, connected(server) as shop:
        value = ua.DataValue(ua.Variant(5, ua.VariantType.UInt32))
        await expect_status(
            "BadUserAccessDenied", shop.node("Production.PartCount").write_value(value)
        )


@check
async def silence_and_its_end() -> None:
    async with counterpart() as server, connected(server) as shop:
        changes = Changes()
        subscription = await shop.client.create_subscription(50, changes)
        await subscription.subscribe_data_change(shop.node("Production.PartCount"))
        await changes.wait_for(lambda v: v.Value.Value == 0)
        await server.must("silence", on=True)
        await server.must("set", node="5AX-01.Production.PartCount", value=1.0)
        await asyncio.sleep(1)
        assert len(changes.values) == 1, "silent"
        assert await shop.node("Production.PartCount").read_value() == 1, "but answers reads"
        await server.must("silence", on=False)
        await changes.wait_for(lambda v: v.Value.Value == 1)


@check
async def publishing_goes_by_the_book() -> None:
    async with counterpart() as server, connected(server) as shop:
        send = shop.client.uaclient.protocol.send_request
        await expect_status("BadNoSubscription", send(ua.PublishRequest()))
        subscription = await shop.client.create_subscription(50, Changes())
        repeat = ua.RepublishRequest()
        repeat.Parameters.SubscriptionId = subscription.subscription_id
        repeat.Parameters.RetransmitSequenceNumber = 4711
        await expect_status("BadMessageNotAvailable", send(repeat))
        repeat.Parameters.SubscriptionId = 0
        await expect_status("BadSubscriptionIdInvalid", send(repeat))


# --- jobs -----------------------------------------------------------------------------------------


@check
async def the_machine_runs_what_it_may() -> None:
    async with counterpart("--extra-namespaces", "2") as server, connected(server) as shop:
        assert await shop.store(order("low", 1)) == 1
        assert await shop.store(order("high", 9, program="O77")) == 1
        assert await shop.job_states() == {"low": 1, "high": 1}
        assert await shop.command("Start", "low") == 1
        assert await shop.command("Start", "high") == 1
        assert await server.hear_until("CALL 5AX-01 Start high -> 1")
        await shop.wait_for_state("high", 3)
        assert (await shop.job_states())["low"] == 2, "one at a time, by priority"
        item = shop.node("MachineryBuildingBlocks.MachineryItemState")
        assert (await shop.state_of(item))[0] == "Executing"
        assert await shop.node("Production.ActiveProgram.Name").read_value() == "O77"
        assert await shop.node("Production.ActiveProgram.State.CurrentState.Number").read_value() == 1
        await server.must("interrupt_job", machine="5AX-01", id="high")
        assert (await shop.job_states())["high"] == 4
        assert await shop.command("Resume", "high") == 1
        await server.must("finish_job", machine="5AX-01", id="high")
        assert (await shop.job_states())["high"] == 5
        await shop.wait_for_state("low", 3)
        await server.must("abort_job", machine="5AX-01", id="low")
        results = "MachineryBuildingBlocks.JobManagement.JobOrderResults"
        responses = await shop.node(f"{results}.JobOrderResponseList").read_value()
        assert {r.JobOrderID: r.JobState[0].StateNumber for r in responses} == {"high": 5, "low": 6}
        assert all(r.EndTime >= r.StartTime for r in responses)
        response, status = await shop.node(results).call_method(
            ua.QualifiedName("RequestJobResponseByJobOrderID", shop.index(ISA95_V2)), "high"
        )
        assert status == 1 and response.JobOrderID == "high"
        await server.must("jobs", machine="5AX-01")
        said = json.loads((await server.hear_until("JOBS ")).removeprefix("JOBS "))
        assert {j["id"]: j["state"] for j in said} == {"high": "Ended", "low": "Aborted"}


@check
async def commands_and_states() -> None:
    async with counterpart() as server, connected(server) as shop:
        await server.must("run_jobs", on=False)
        assert await shop.command("Start", "a") == 2, "unknown"
        assert await shop.store(order("a")) == 1
        assert await shop.store(order("a")) == 16, "there already"
        for method in ("Pause", "Resume", "Stop", "RevokeStart", "Clear"):
            assert await shop.command(method, "a") == 8, method
        assert await shop.command("Start", "a") == 1
        assert await shop.command("Start", "a") == 8, "allowed already"
        assert await shop.command("RevokeStart", "a") == 1
        changed = order("a", 5)
        assert await shop.store(changed, "Update") == 1
        assert (await shop.job_list())[0].JobOrder.Priority == 5
        assert await shop.store(order("z"), "Update") == 2
        assert await shop.command("Cancel", "a") == 1
        assert await shop.job_states() == {}
        for number in range(8):
            assert await shop.store(order(f"job {number}")) == 1
        assert await shop.store(order("one too many")) == 16
        assert await shop.command("Abort", "job 0") == 1
        assert await shop.command("Cancel", "job 0") == 8
        assert await shop.command("Clear", "job 0") == 1
        assert await shop.command("Start", "job 1") == 1
        await asyncio.sleep(1.5)
        assert (await shop.job_states())["job 1"] == 2, "does not run by itself"
        await server.must("item", machine="5AX-01", state="OutOfService")
        await server.must("run_jobs", on=True)
        await asyncio.sleep(0.5)
        assert (await shop.job_states())["job 1"] == 2, "nor when out of service"
        await server.must("item", machine="5AX-01", state="NotExecuting")
        await shop.wait_for_state("job 1", 3)
        assert await shop.command("Pause", "job 1") == 1
        assert await shop.command("Stop", "job 1") == 1
        assert (await shop.job_states())["job 1"] == 5


@check
async def structures_survive_the_way_there_and_back() -> None:
    async with counterpart() as server, connected(server) as shop:
        inner = ua.ISA95ParameterDataType(ID="inner", Value=ua.Variant(2.5, ua.VariantType.Double))
        outer = ua.ISA95ParameterDataType(
            ID="Program", Value=ua.Variant("O99", ua.VariantType.String), Subparameters=[inner]
        )
        sent = order("full")
        sent.Description = [ua.LocalizedText("a job", "en")]
        sent.JobOrderParameters = [outer]
        assert await shop.store(sent) == 1
        got = (await shop.job_list())[0].JobOrder
        assert got.Description[0].Text == "a job" and got.StartTime is None
        assert got.JobOrderParameters[0].Subparameters[0].Value.Value == 2.5
        assert await shop.command("Start", "full") == 1
        await shop.wait_for_state("full", 3)
        assert await shop.node("Production.ActiveProgram.Name").read_value() == "O99"


@check
async def store_and_start_is_told_of() -> None:
    async with counterpart() as server, connected(server) as shop:
        assert await shop.store(order("rash"), "StoreAndStart") == 1
        await server.hear_until("FORBIDDEN StoreAndStart 5AX-01 rash")
        assert (await shop.job_states())["rash"] in (2, 3)


@check
async def methods_by_type_and_wrong_arguments() -> None:
    arguments = ("--without-methods", "Update,Cancel")
    async with counterpart(*arguments) as server, connected(server) as shop:
        control = shop.node("MachineryBuildingBlocks.JobManagement.JobOrderControl")
        given = (ua.Variant(order("typed"), ua.VariantType.ExtensionObject), no_comment())
        assert await control.call_method(shop.standard(ISA95_V2, 7001), *given) == 1
        methods = [(await m.read_browse_name()).Name for m in await control.get_methods()]
        assert "Store" in methods and "Update" not in methods and "Cancel" not in methods
        await expect_status("BadArgumentsMissing", shop.call("Start", ua.Variant("typed")))
        wrong = ua.Variant(5, ua.VariantType.Int32)
        await expect_status("BadInvalidArgument", shop.call("Start", wrong, no_comment()))
        await server.hear_until("CALL 5AX-01 Start - -> BadInvalidArgument")


@check
async def undecodable_values() -> None:
    async with counterpart() as server, connected(server) as shop:
        assert await shop.store(order("fine")) == 1
        await server.must("undecodable", machine="5AX-01")
        entries = await shop.job_list()
        assert len(entries) == 2 and isinstance(entries[1], ua.ExtensionObject) and entries[1].Body
        opaque = await shop.node("Monitoring.Opaque").read_value()
        assert opaque.TypeId == ua.NodeId(999_999, shop.index(SHOP))
        await server.must("undecodable", machine="5AX-01", on=False)
        assert len(await shop.job_list()) == 1


@check
async def first_edition_is_for_reading() -> None:
    for generation in ("1.01", "1.02"):
        arguments = ("--generation", generation, "--jobs", "v1")
        async with counterpart(*arguments) as server, connected(server) as shop:
            control = await shop.browse(
                shop.node("MachineryBuildingBlocks"),
                (ISA95_V1, "JobManagement"),
                (ISA95_V1, "JobOrderControl"),
            )
            entries = await (await shop.browse(control, (ISA95_V1, "JobOrderList"))).read_value()
            assert len(entries) == 2 and entries[0].TypeId.NamespaceIndex == shop.index(ISA95_V1)
            assert b"OLD-1" in entries[0].Body
            await control.call_method(ua.QualifiedName("Store", shop.index(ISA95_V1)), "x")
            await server.hear_until("FORBIDDEN v1 Store 5AX-01")


# --- connections, sessions, security --------------------------------------------------------------


async def abandoned_session(server: Counterpart, timeout_ms: int) -> ua.NodeId:
    """Opens a session with a subscription, and cuts the connection under it. Returns its token."""
    client = Client(server.url, timeout=10)
    client.session_timeout = timeout_ms
    await client.connect()
    shop = await shop_of(client)
    subscription = await client.create_subscription(50, Changes())
    await subscription.subscribe_data_change(shop.node("Production.PartCount"))
    token = client.uaclient.protocol.authentication_token
    client.uaclient.protocol.transport.abort()
    await server.hear_until("SESSION 11 lost its connection")
    await disarm(client)
    return token


async def disarm(client: Client) -> None:
    """Ends what the client does in the background, without a word to the server."""
    background = (client._renew_channel_task, client._monitor_server_task, client.uaclient._publish_task)
    for task in background:
        if task is not None:
            task.cancel()
    client.uaclient.disconnect_socket()


@check
async def lost_sessions_count_until_they_time_out() -> None:
    async with counterpart("--max-sessions", "1") as server:
        lost_at = time.monotonic()
        await abandoned_session(server, timeout_ms=2_000)
        refused = Client(server.url, timeout=10)
        await expect_status("BadTooManySessions", refused.connect())
        await server.hear_until("REFUSED CreateSession BadTooManySessions")
        await server.hear_until("SESSION 11 timed out")
        assert 1.5 < time.monotonic() - lost_at < 5
        async with connected(server) as shop:
            assert await shop.machines()
        async with connected(server) as shop:
            assert await shop.machines(), "a closed session makes room at once"


@asynccontextmanager
async def taken_up(server: Counterpart, token: ua.NodeId) -> AsyncIterator[Client]:
    """Activates a session over a new connection, as clients do that have lost one."""
    client = Client(server.url, timeout=10)
    await client.connect_socket()
    await client.send_hello()
    await client.open_secure_channel()
    client.uaclient.protocol.authentication_token = token
    parameters = ua.ActivateSessionParameters()
    parameters.UserIdentityToken = ua.AnonymousIdentityToken(PolicyId="anonymous")
    try:
        await client.uaclient.activate_session(parameters)
        yield client
    finally:
        client.disconnect_socket()


async def published_count(client: Client) -> int:
    """Asks for what a subscription has, until it is a value."""
    while True:
        answer = await client.uaclient.protocol.send_request(ua.PublishRequest())
        response = ua.ua_binary.struct_from_binary(ua.PublishResponse, answer)
        for notification in response.Parameters.NotificationMessage.NotificationData or []:
            return notification.MonitoredItems[-1].Value.Value.Value


@check
async def sessions_can_be_taken_up_again() -> None:
    async with counterpart("--max-sessions", "1") as server:
        token = await abandoned_session(server, timeout_ms=20_000)
        await server.must("set", node="5AX-01.Production.PartCount", value=7)
        async with taken_up(server, token) as client:
            await server.hear_until("SESSION 11 taken up again")
            assert await asyncio.wait_for(published_count(client), PATIENCE_S) == 7
    async with counterpart("--reattach", "no") as server:
        token = await abandoned_session(server, timeout_ms=20_000)
        await expect_status("BadSessionIdInvalid", taken_up(server, token).__aenter__())


@check
async def dropped_connections() -> None:
    async with counterpart() as server:
        client = Client(server.url, timeout=3)
        await client.connect()
        await server.must("drop")
        await server.hear_until("SESSION 11 lost its connection")
        try:
            await client.get_namespace_array()
        except (ConnectionError, ua.UaError, asyncio.TimeoutError):
            pass
        else:
            raise AssertionError("the connection is still there")
        await disarm(client)
        async with connected(server) as shop:
            assert await shop.machines()


@check
async def users() -> None:
    async with counterpart("--user", "agent:secret") as server:
        await expect_status("BadIdentityTokenRejected", Client(server.url, timeout=10).connect())
        for password, is_right in (("wrong", False), ("secret", True)):
            client = Client(server.url, timeout=10)
            client.set_user("agent")
            client.set_password(password)
            if is_right:
                async with client:
                    assert await client.get_namespace_array()
            else:
                await expect_status("BadUserAccessDenied", client.connect())


def make_identity(folder: Path, name: str, uri: str) -> tuple[Path, Path]:
    """A certificate of its own issue, and its key."""
    key = generate_private_key()
    usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    names = [x509.UniformResourceIdentifier(uri), x509.DNSName("localhost")]
    certificate = generate_self_signed_app_certificate(key, name, {}, names, extended=usage)
    certificate_path, key_path = folder / f"{name}.der", folder / f"{name}.pem"
    certificate_path.write_bytes(certificate.public_bytes(Encoding.DER))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate_path, key_path


async def secured(server: Counterpart, identity: tuple[Path, Path], of: Path, uri: str) -> Client:
    client = Client(server.url, timeout=10)
    client.application_uri = uri
    certificate, key = identity
    await client.set_security(SecurityPolicyBasic256Sha256, certificate, key, server_certificate=of)
    return client


@check
async def encryption_and_trust() -> None:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        trusted = folder / "trusted"
        trusted.mkdir()
        own = make_identity(folder, "server", "urn:example:server")
        uri = "urn:example:client"
        known, unknown = make_identity(folder, "known", uri), make_identity(folder, "unknown", uri)
        (trusted / "known.der").write_bytes(known[0].read_bytes())
        arguments = ["--security", "basic256sha256", "--certificate", str(own[0])]
        arguments += ["--private-key", str(own[1]), "--trust", str(trusted), "--user", "agent:secret"]
        async with counterpart(*arguments) as server:
            endpoints = await Client(server.url, timeout=10).connect_and_get_server_endpoints()
            assert [e.SecurityMode for e in endpoints] == [ua.MessageSecurityMode.SignAndEncrypt]
            assert endpoints[0].Server.ApplicationUri == "urn:example:server"
            client = await secured(server, known, own[0], uri)
            client.set_user("agent")
            client.set_password("secret")
            async with client:
                assert await client.get_namespace_array()
            stranger = await secured(server, unknown, own[0], uri)
            try:
                await stranger.connect()
            except (ConnectionError, ua.UaError, asyncio.TimeoutError):
                pass
            else:
                raise AssertionError("the stranger came in")
            await server.hear_until("REJECTED certificate ")
            await server.hear_until("REFUSED OpenSecureChannel BadSecurityChecksFailed")
            plain = Client(server.url, timeout=10)
            await plain.connect_socket()
            await plain.send_hello()
            await plain.open_secure_channel()
            await expect_status("BadSecurityPolicyRejected", plain.create_session())
            plain.disconnect_socket()


@check
async def ends_on_sigterm_and_without_input() -> None:
    async with counterpart() as server, connected(server):
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(server.process.wait(), PATIENCE_S) == 0
    async with counterpart() as server, connected(server):
        server.process.stdin.close()
        assert await asyncio.wait_for(server.process.wait(), PATIENCE_S) == 0


# --- running --------------------------------------------------------------------------------------


async def run(names: list[str]) -> int:
    failed = 0
    for function in checks:
        if names and function.__name__ not in names:
            continue
        try:
            await asyncio.wait_for(function(), 4 * PATIENCE_S)
        except Exception:
            failed += 1
            print(f"FAILED {function.__name__}")
            traceback.print_exc(file=sys.stdout)
        else:
            print(f"ok     {function.__name__}", flush=True)
    for arguments, seconds in ready_times:
        print(f"ready after {seconds:4.1f} s: {arguments[:90]}")
    return failed


if __name__ == "__main__":
    import logging

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    sys.exit(min(asyncio.run(run(sys.argv[1:])), 1))
