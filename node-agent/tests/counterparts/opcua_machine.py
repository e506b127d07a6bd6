"""One machine tool in the address space: an instance of MachineToolType, and the values that change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Optional

from asyncua import ua

from opcua_jobs import METHODS, Job, JobControl, JobState, build_first_edition, opaque_value
from opcua_space import (
    HAS_COMPONENT,
    HAS_ORDERED_COMPONENT,
    HAS_SUBTYPE,
    IA,
    MACHINE_TOOL,
    MACHINERY,
    ORGANIZES,
    SHOP,
    Space,
    bad,
    good,
)

Type = ua.VariantType


@dataclass(frozen=True)
class Features:
    """What a machine offers beyond what is mandatory."""

    generation: str
    jobs: str
    item_state: bool = True
    vendor_nodes: bool = True
    vendor_type: bool = False
    without_methods: frozenset[str] = frozenset()


# --- state machines -------------------------------------------------------------------------------


@dataclass(frozen=True)
class States:
    """The states of a state machine type: the nodeset that has them, and number and node id of each."""

    uri: str
    states: dict[str, tuple[int, int]]


ITEM_STATES = States(
    MACHINERY,
    {
        "NotAvailable": (0, 5005),
        "OutOfService": (1, 5004),
        "NotExecuting": (2, 5007),
        "Executing": (3, 5006),
    },
)
# MachineTool derives the type of the mode and declares the states anew: they are not Machinery's
# nodes 5024 to 5027.
OPERATION_MODES = States(
    MACHINE_TOOL,
    {"None": (0, 5059), "Maintenance": (1, 5058), "Setup": (2, 5061), "Processing": (3, 5060)},
)
PROGRAM_STATES = States(
    MACHINE_TOOL,
    {
        "Initializing": (0, 5039),
        "Running": (1, 5041),
        "Ended": (2, 5038),
        "Interrupted": (3, 5040),
        "Aborted": (4, 5037),
    },
)
PLANNED_JOB_STATES = States(
    MACHINE_TOOL,
    {
        "Initializing": (0, 5015),
        "Running": (1, 5017),
        "Ended": (2, 5014),
        "Interrupted": (3, 5016),
        "Aborted": (4, 5013),
    },
)

# What the control's own view of a job is, as program state and as item state.
JOB_EFFECTS: dict[JobState, tuple[str, str]] = {
    JobState.Running: ("Running", "Executing"),
    JobState.Interrupted: ("Interrupted", "NotExecuting"),
    JobState.Ended: ("Ended", "NotExecuting"),
    JobState.Aborted: ("Aborted", "NotExecuting"),
}

OPERATION_MODE_NUMBERS = range(6)

INTEGERS = (
    Type.SByte,
    Type.Byte,
    Type.Int16,
    Type.UInt16,
    Type.Int32,
    Type.UInt32,
    Type.Int64,
    Type.UInt64,
)

LIGHTS = {"red": 1, "yellow": 4, "green": 2}
LIGHT_MODES = {"continuous": 0, "blinking": 1, "flashing": 2, "other": 3}

# --- units ----------------------------------------------------------------------------------------

UNECE = "http://www.opcfoundation.org/UA/units/un/cefact"


def unit(code: str, symbol: str, name: str) -> ua.EUInformation:
    """UNECE's code letters, read as a big-endian number, are the unit's id."""
    information = ua.EUInformation()
    information.NamespaceUri = UNECE
    information.UnitId = int.from_bytes(code.encode(), "big")
    information.DisplayName = ua.LocalizedText(symbol)
    information.Description = ua.LocalizedText(name)
    return information


PERCENT = unit("P1", "%", "percent")
KILOWATT = unit("KWT", "kW", "kilowatt")
KILOWATT_HOUR = unit("KWH", "kWh", "kilowatt hour")

# --- the choice of optional members ---------------------------------------------------------------

OPTIONAL_MEMBERS = frozenset(
    (
        "Identification.Model",
        "Identification.Location",
        "Identification.YearOfConstruction",
        "MachineryBuildingBlocks",
        "MachineryBuildingBlocks.Identification",
        "Monitoring.MachineTool.FeedOverride",
        "Monitoring.MachineTool.IsWarmUp",
        "Monitoring.MachineTool.PowerOnDuration",
        "Monitoring.Stacklight",
        "Notification.Messages",
        "Production.ActiveProgram.JobIdentifier",
        "Production.Statistics",
        "Production.Statistics.PartsProducedInLifetime",
        "Production.ProductionPlan",
    )
)
STATE_ADD_INS = ("MachineryItemState", "MachineryOperationMode")
JOB_MANAGEMENT = "MachineryBuildingBlocks.JobManagement"


def _optional_members(features: Features) -> frozenset[str]:
    members = set(OPTIONAL_MEMBERS)
    if features.item_state:
        for add_in in STATE_ADD_INS:
            for place in ("MachineryBuildingBlocks", "Monitoring.MachineTool"):
                members.add(f"{place}.{add_in}")
            if features.generation == "1.02":
                # Optional in both generations. Only the newer machines have it here, so that clients
                # meet machines where the state's node id is all there is.
                members.add(f"MachineryBuildingBlocks.{add_in}.CurrentState.Number")
    if features.jobs == "v2":
        members.add(JOB_MANAGEMENT)
        members.add(f"{JOB_MANAGEMENT}.JobOrderResults.JobOrderResponseList")
        for method in METHODS:
            if method not in features.without_methods:
                members.add(f"{JOB_MANAGEMENT}.JobOrderControl.{method}")
    return frozenset(members)


# --- the machine ----------------------------------------------------------------------------------


class Machine:
    """A machine tool and its values. Paths are browse names from the machine, with dots between."""

    def __init__(self, space: Space, name: str, features: Features) -> None:
        self.name = name
        self.jobs: Optional[JobControl] = None
        self._space = space
        self._features = features
        self._root = space.shop(name)
        self._item_state = "NotExecuting"

    @classmethod
    async def build(cls, space: Space, name: str, serial: int, features: Features) -> Machine:
        machine = cls(space, name, features)
        machine._instantiate()
        machine._add_monitored_elements()
        machine._add_lights()
        machine._add_planned_job()
        await machine._fill_in(serial)
        await machine._add_jobs()
        return machine

    @property
    def job_control(self) -> ua.NodeId:
        return self._node(f"{JOB_MANAGEMENT}.JobOrderControl")

    # What commands change.

    async def set_item_state(self, state: str) -> None:
        """One object with two parents holds the state, so it changes in both places."""
        await self._put_state("MachineryBuildingBlocks.MachineryItemState", ITEM_STATES, state)
        self._item_state = state

    async def set_mode(self, mode: str) -> None:
        await self._put_state("MachineryBuildingBlocks.MachineryOperationMode", OPERATION_MODES, mode)

    async def set_tool_mode(self, mode: int) -> None:
        if mode not in OPERATION_MODE_NUMBERS:
            raise ValueError(f"no operation mode {mode}")
        await self._put("Monitoring.MachineTool.OperationMode", mode, Type.Int32)

    async def set_program(self, name: str, state: str) -> None:
        await self._put("Production.ActiveProgram.Name", name, Type.String)
        await self._put_state("Production.ActiveProgram.State", PROGRAM_STATES, state)

    async def set_light(self, light: str, on: bool, mode: str = "continuous") -> None:
        path = f"Monitoring.Stacklight.{light.capitalize()}"
        if light not in LIGHTS:
            raise ValueError(f"no light {light}")
        await self._put(f"{path}.SignalOn", on, Type.Boolean)
        await self._put(f"{path}.SignalMode", LIGHT_MODES[mode], Type.Int32)

    async def make_undecodable(self, on: bool) -> None:
        """The job list and, with vendor nodes, a variable of its own become partly illegible."""
        if self.jobs is not None:
            self.jobs.has_undecodable_entry = on
            await self.jobs.publish()
        opaque = self._node("Monitoring.Opaque")
        if self._space.exists(opaque):
            content = opaque_value(self._space) if on else ua.ExtensionObject()
            await self._space.write(opaque, good(content, Type.ExtensionObject))

    async def follow_job(self, job: Job) -> None:
        """Item state and program go with the job that the machine has taken up."""
        program_state, item_state = JOB_EFFECTS[job.state]
        await self.set_program(job.program(), program_state)
        await self._put("Production.ActiveProgram.JobIdentifier", job.id, Type.String)
        if self._item_state in ("Executing", "NotExecuting"):
            await self.set_item_state(item_state)

    def may_run_jobs(self) -> bool:
        return self._item_state == "NotExecuting"

    # Building.

    def _instantiate(self) -> None:
        space = self._space
        members = _optional_members(self._features)
        space.instantiate(
            self._vendor_type() if self._features.vendor_type else space.standard(MACHINE_TOOL, 13),
            self._root,
            space.standard(MACHINERY, 1001),
            space.name(SHOP, self.name),
            ORGANIZES,
            members.__contains__,
        )

    def _vendor_type(self) -> ua.NodeId:
        """A builder's own type, derived from the standard's: what machines are most often made from."""
        node = self._space.shop("ShopMachineToolType")
        if not self._space.exists(node):
            self._space.add(
                node,
                self._space.standard(MACHINE_TOOL, 13),
                HAS_SUBTYPE,
                self._space.name(SHOP, "ShopMachineToolType"),
                ua.ObjectTypeAttributes(),
                ua.NodeClass.ObjectType,
            )
        return node

    def _add_monitored_elements(self) -> None:
        """The NC channel and the spindle, and what a builder adds for want of a standard's node."""
        self._add_element("Channel1", 16)
        self._add_element("Spindle1", 22)
        if not self._features.vendor_nodes:
            return
        monitoring = self._node("Monitoring")
        self._add_measured(self._node("Monitoring.Spindle1"), "Load", PERCENT)
        self._add_measured(monitoring, "AcActivePowerTotal", KILOWATT)
        self._add_measured(monitoring, "AcActiveEnergyTotalImportHp", KILOWATT_HOUR)
        no_parts = ua.Variant(0, Type.UInt32)
        self._add_vendor(self._node("Production"), "PartCount", no_parts, ua.ObjectIds.UInt32)
        nothing = ua.Variant(ua.ExtensionObject(), Type.ExtensionObject)
        self._add_vendor(monitoring, "Opaque", nothing, ua.ObjectIds.Structure)

    def _add_element(self, name: str, type_id: int) -> None:
        self._space.instantiate(
            self._space.standard(MACHINE_TOOL, type_id),
            self._node(f"Monitoring.{name}"),
            self._node("Monitoring"),
            self._space.name(SHOP, name),
            HAS_COMPONENT,
            lambda path: path == "Override",
        )

    def _add_vendor(
        self,
        parent: ua.NodeId,
        name: str,
        value: ua.Variant,
        data_type: int,
        type_definition: int = ua.ObjectIds.BaseDataVariableType,
    ) -> ua.NodeId:
        return self._space.add_variable(
            self._space.shop(f"{parent.Identifier}.{name}"),
            parent,
            self._space.name(SHOP, name),
            value,
            ua.NodeId(data_type),
            type_definition=ua.NodeId(type_definition),
        )

    def _add_measured(self, parent: ua.NodeId, name: str, measured_in: ua.EUInformation) -> None:
        zero = ua.Variant(0.0, Type.Double)
        node = self._add_vendor(parent, name, zero, ua.ObjectIds.Double, ua.ObjectIds.AnalogUnitType)
        self._space.add_property(
            node,
            ua.QualifiedName("EngineeringUnits", 0),
            ua.Variant(measured_in, Type.ExtensionObject),
            ua.NodeId(ua.ObjectIds.EUInformation),
        )

    def _add_lights(self) -> None:
        """Optional in IA's type of a light, mandatory in MachineTool's stack light: colour and mode."""
        for light in LIGHTS:
            name = light.capitalize()
            self._space.instantiate(
                self._space.standard(IA, 1006),
                self._node(f"Monitoring.Stacklight.{name}"),
                self._node("Monitoring.Stacklight"),
                self._space.name(SHOP, name),
                HAS_ORDERED_COMPONENT,
                lambda path: path in ("SignalOn", "SignalColor", "SignalMode"),
            )

    def _add_planned_job(self) -> None:
        """The control's own plan, with its parts: older than ISA-95's jobs, and deprecated since 1.02."""
        self._space.instantiate(
            self._space.standard(MACHINE_TOOL, 29),
            self._node("Production.ProductionPlan.Job1"),
            self._node("Production.ProductionPlan"),
            self._space.name(SHOP, "Job1"),
            HAS_ORDERED_COMPONENT,
            lambda path: path in ("PartsCompleted", "PartsGood"),
        )

    async def _add_jobs(self) -> None:
        if self._features.jobs == "v2":
            self.jobs = JobControl(
                self._space, self.name, self._node(JOB_MANAGEMENT), self.follow_job, self.may_run_jobs
            )
            await self.jobs.prepare()
        elif self._features.jobs == "v1":
            build_first_edition(self._space, self.name, self._node("MachineryBuildingBlocks"))

    async def _fill_in(self, serial: int) -> None:
        """First values: a machine that is ready, in automatic mode, with no program begun."""
        for path, value, variant_type in (
            ("Identification.Manufacturer", ua.LocalizedText("Example Works"), Type.LocalizedText),
            ("Identification.Model", ua.LocalizedText("Five 500"), Type.LocalizedText),
            ("Identification.SerialNumber", f"SN-{serial:04}", Type.String),
            ("Identification.ProductInstanceUri", f"urn:example:five500:{serial:04}", Type.String),
            ("Identification.Location", "Hall 1", Type.String),
            ("Identification.YearOfConstruction", 2021, Type.UInt16),
            ("Monitoring.MachineTool.FeedOverride", 100.0, Type.Double),
            ("Monitoring.MachineTool.FeedOverride.EngineeringUnits", PERCENT, Type.ExtensionObject),
            ("Monitoring.MachineTool.FeedOverride.EURange", ua.Range(0.0, 150.0), Type.ExtensionObject),
            ("Monitoring.MachineTool.IsWarmUp", False, Type.Boolean),
            ("Monitoring.MachineTool.PowerOnDuration", 8000, Type.UInt32),
            ("Monitoring.Channel1.Name", "Channel 1", Type.String),
            ("Monitoring.Channel1.ChannelMode", 0, Type.Int32),
            ("Monitoring.Channel1.ChannelState", 2, Type.Int32),
            ("Monitoring.Channel1.FeedOverride", 100.0, Type.Double),
            ("Monitoring.Channel1.FeedOverride.EngineeringUnits", PERCENT, Type.ExtensionObject),
            ("Monitoring.Channel1.FeedOverride.EURange", ua.Range(0.0, 150.0), Type.ExtensionObject),
            ("Monitoring.Spindle1.Name", "Spindle 1", Type.String),
            ("Monitoring.Spindle1.IsRotating", False, Type.Boolean),
            ("Monitoring.Spindle1.Override", 100.0, Type.Double),
            ("Monitoring.Spindle1.Override.EngineeringUnits", PERCENT, Type.ExtensionObject),
            ("Monitoring.Spindle1.Override.EURange", ua.Range(0.0, 150.0), Type.ExtensionObject),
            ("Monitoring.Stacklight.StacklightMode", 0, Type.Int32),
            ("Production.ActiveProgram.NumberInList", 0, Type.UInt16),
            ("Production.ActiveProgram.JobIdentifier", "", Type.String),
            ("Production.Statistics.PartsProducedInLifetime", 0, Type.UInt32),
            ("Production.ProductionPlan.Job1.Identifier", "Job1", Type.String),
            ("Production.ProductionPlan.Job1.NumberInList", 0, Type.UInt16),
            ("Production.ProductionPlan.Job1.RunsCompleted", 0, Type.UInt32),
            ("Production.ProductionPlan.Job1.RunsPlanned", 0, Type.UInt32),
            ("Production.ProductionPlan.Job1.RunsPlanned.IsValid", False, Type.Boolean),
            ("Production.ProductionPlan.Job1.PartsCompleted", 0, Type.UInt32),
            ("Production.ProductionPlan.Job1.PartsGood", 0, Type.UInt32),
        ):
            await self._put(path, value, variant_type)
        await self._put_state("Production.ProductionPlan.Job1.State", PLANNED_JOB_STATES, "Initializing")
        for number, (light, colour) in enumerate(LIGHTS.items()):
            path = f"Monitoring.Stacklight.{light.capitalize()}"
            await self._put(f"{path}.NumberInList", number, Type.UInt32)
            await self._put(f"{path}.SignalColor", colour, Type.Int32)
            await self.set_light(light, on=False)
        await self.set_item_state("NotExecuting")
        await self.set_mode("Processing")
        await self.set_tool_mode(1)
        await self.set_program("", "Initializing")

    # Values.

    def _node(self, path: str) -> ua.NodeId:
        return self._space.shop(f"{self.name}.{path}")

    async def _put(self, path: str, value: Any, variant_type: ua.VariantType) -> None:
        await self._space.write(self._node(path), good(value, variant_type))

    async def _put_state(self, path: str, machine: States, state: str) -> None:
        """A state's name, node id and number; a machine that lacks the state machine has none to show."""
        if state not in machine.states:
            raise ValueError(f"no state {state}; there are {', '.join(machine.states)}")
        number, identifier = machine.states[state]
        current = f"{path}.CurrentState"
        if not self._space.exists(self._node(current)):
            return
        await self._put(f"{current}.Id", self._space.standard(machine.uri, identifier), Type.NodeId)
        if self._space.exists(self._node(f"{current}.Number")):
            await self._put(f"{current}.Number", number, Type.UInt32)
        await self._put(current, ua.LocalizedText(state, "en"), Type.LocalizedText)


def find_variable(space: Space, text: str) -> ua.NodeId:
    """`nsu=URI;s=NAME` or `nsu=URI;i=NUMBER`, or a bare name in the vendor's namespace."""
    if not text.startswith("nsu="):
        node = space.shop(text)
    else:
        uri, _, identifier = text.removeprefix("nsu=").rpartition(";")
        kind, _, value = identifier.partition("=")
        node = ua.NodeId(int(value) if kind == "i" else value, space.index(uri))
    if not space.exists(node):
        raise ValueError(f"no node {text}")
    return node


async def set_variable(space: Space, node: ua.NodeId, value: Any) -> None:
    """Writes a value as the variable's own type, whatever JSON makes of it."""
    variant_type = space.builtin_type(node)
    await space.write(node, good(_as_type(value, variant_type), variant_type))


async def spoil_variable(space: Space, node: ua.NodeId, status: str) -> None:
    if not hasattr(ua.StatusCodes, status) or not status.startswith("Bad"):
        raise ValueError(f"{status} is no bad status")
    await space.write(node, bad(status))


def _as_type(value: Any, variant_type: ua.VariantType) -> Any:
    if variant_type in (Type.Double, Type.Float):
        return float(value)
    if variant_type == Type.Boolean:
        return bool(value)
    if variant_type == Type.String:
        return str(value)
    if variant_type == Type.LocalizedText:
        return ua.LocalizedText(str(value))
    if variant_type == Type.DateTime:
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    if variant_type in INTEGERS and int(value) == value:
        return int(value)
    raise ValueError(f"cannot write {value!r} as {variant_type.name}")
