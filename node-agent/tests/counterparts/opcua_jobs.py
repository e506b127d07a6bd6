"""Job control of one machine: OPC 10031-4 in its second edition, and the outside of its first.

A job is what a client stores. Start only permits it: when to run it, the machine decides.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import IntEnum
from typing import Any, Awaitable, Callable, Optional

from asyncua import ua

from opcua_server import tell
from opcua_space import HAS_ADD_IN, ISA95_V1, ISA95_V2, SHOP, Space, good

MAX_JOBS = 8
# How long the machine waits before it runs a job that it is allowed to run.
START_DELAY_S = 1.0

# Parameters that may name a job's program, where it is not in the place for it, the work master.
PROGRAM_PARAMETERS = ("Program", "ProgramName", "NCProgram")


class JobState(IntEnum):
    """With the numbers of ISA95JobOrderReceiverObjectType's states."""

    NotAllowedToStart = 1
    AllowedToStart = 2
    Running = 3
    Interrupted = 4
    Ended = 5
    Aborted = 6


class Return(IntEnum):
    """ReturnStatus, a bit map: OPC 10031-4, table B.2. The first edition has 4, invalid command, too."""

    OK = 1
    UNKNOWN_JOB = 2
    INVALID_STATE = 8
    # For a full list, and for an id that is there already: the standard does not name the latter, and
    # the OPC Foundation's reference implementation answers so.
    CANNOT_ACCEPT = 16


REMOVED = None

# What each method asks of a job's state, and what becomes of the job.
COMMANDS: dict[str, tuple[frozenset[JobState], Optional[JobState]]] = {
    "Start": (frozenset({JobState.NotAllowedToStart}), JobState.AllowedToStart),
    "RevokeStart": (frozenset({JobState.AllowedToStart}), JobState.NotAllowedToStart),
    "Pause": (frozenset({JobState.Running}), JobState.Interrupted),
    "Resume": (frozenset({JobState.Interrupted}), JobState.Running),
    "Stop": (frozenset({JobState.Running, JobState.Interrupted}), JobState.Ended),
    "Abort": (
        frozenset(set(JobState) - {JobState.Ended, JobState.Aborted}),
        JobState.Aborted,
    ),
    "Cancel": (frozenset({JobState.NotAllowedToStart, JobState.AllowedToStart}), REMOVED),
    "Clear": (frozenset({JobState.Ended, JobState.Aborted}), REMOVED),
}
WITH_ORDER = ("Store", "Update", "StoreAndStart")
METHODS = (*WITH_ORDER, *COMMANDS)

NOT_STARTED = (JobState.NotAllowedToStart, JobState.AllowedToStart)


@dataclass
class Job:
    """A job order and how far it has come."""

    order: Any
    state: JobState
    number: int
    since: float
    started: Optional[datetime] = None
    ended: Optional[datetime] = None

    @property
    def id(self) -> str:
        return self.order.JobOrderID

    def precedence(self) -> tuple[int, datetime, int]:
        """Higher priority first, then the earlier proposed start, then the earlier stored."""
        start = self.order.StartTime or datetime.max.replace(tzinfo=timezone.utc)
        if start.tzinfo is None:
            start = start.replace(tzinfo=timezone.utc)
        return -(self.order.Priority or 0), start, self.number

    def program(self) -> str:
        """OPC 40501-1, annex B.2, maps the active program's name to the work master's id."""
        masters = self.order.WorkMasterID or []
        if masters and masters[0].ID:
            return masters[0].ID
        parameters = {p.ID: p.Value.Value for p in self.order.JobOrderParameters or []}
        named = (str(parameters[name]) for name in PROGRAM_PARAMETERS if name in parameters)
        return next(named, self.id)


def opaque_value(space: Space) -> ua.ExtensionObject:
    """A structure of an encoding that no type dictionary knows, with bytes that mean nothing."""
    return ua.ExtensionObject(
        TypeId=ua.NodeId(999_999, space.index(SHOP)), Body=bytes.fromhex("ff00deadbeef7fffffff80")
    )


class Refused(Exception):
    """A call that is answered by a status code, without a return status."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class JobControl:
    """JobOrderControl and JobOrderResults of one machine, second edition."""

    def __init__(
        self,
        space: Space,
        machine: str,
        management: ua.NodeId,
        on_change: Callable[[Job], Awaitable[None]],
        may_run: Callable[[], bool],
    ) -> None:
        self._space = space
        self._machine = machine
        self._control = space.shop(f"{management.Identifier}.JobOrderControl")
        self._results = space.shop(f"{management.Identifier}.JobOrderResults")
        self._on_change = on_change
        self._may_run = may_run
        self._jobs: dict[str, Job] = {}
        self._numbers = itertools.count()
        self.runs_jobs = True
        self.has_undecodable_entry = False

    async def prepare(self) -> None:
        """Gives the methods their effect, and the variables their first values."""
        for name in METHODS:
            method = self._space.shop(f"{self._control.Identifier}.{name}")
            if self._space.exists(method):
                self._space.on_call(method, self._callback(name))
        for name, ask in (
            ("RequestJobResponseByJobOrderID", self._response_by_id),
            ("RequestJobResponseByJobOrderState", self._responses_by_state),
        ):
            self._space.on_call(self._space.shop(f"{self._results.Identifier}.{name}"), ask)
        await self._put("MaxDownloadableJobOrders", good(MAX_JOBS, ua.VariantType.UInt16))
        for name in ("EquipmentID", "MaterialClassID", "MaterialDefinitionID", "PersonnelID", "PhysicalAssetID"):
            await self._put(name, good([], ua.VariantType.String, is_array=True))
        await self._put("WorkMaster", good([], ua.VariantType.ExtensionObject, is_array=True))
        await self.publish()

    async def call(self, name: str, arguments: list[ua.Variant]) -> Any:
        """A method call, on the instance's own method or on its type's."""
        job_id = "-"
        try:
            self._check_arguments(name, arguments)
            target = arguments[0].Value
            job_id = target.JobOrderID if name in WITH_ORDER else target
            if name == "StoreAndStart":
                tell(f"FORBIDDEN StoreAndStart {self._machine} {job_id}")
            status = await self._carry_out(name, target, job_id)
        except Refused as refusal:
            tell(f"CALL {self._machine} {name} {job_id} -> {refusal.status}")
            return ua.StatusCode(getattr(ua.StatusCodes, refusal.status))
        tell(f"CALL {self._machine} {name} {job_id} -> {int(status)}")
        return [ua.Variant(int(status), ua.VariantType.UInt64)]

    async def change(self, job_id: str, allowed: frozenset[JobState], state: JobState) -> None:
        """The machine itself takes a job further."""
        job = self._jobs.get(job_id)
        if job is None or job.state not in allowed:
            raise ValueError(f"job {job_id} is {job.state.name if job else 'unknown'}")
        await self._move(job, state)

    async def take_up_a_job(self) -> None:
        """The machine's own decision, to be asked for time and again."""
        if self.runs_jobs and self._may_run() and not self._is_busy():
            job = self._next_job()
            if job is not None:
                await self._move(job, JobState.Running)

    def summary(self) -> list[dict[str, Any]]:
        return [{"id": job.id, "state": job.state.name} for job in self._jobs.values()]

    async def publish(self) -> None:
        """Writes the lists that clients read. What has not begun has no response yet."""
        entries: list[Any] = [self._with_state(job) for job in self._jobs.values()]
        if self.has_undecodable_entry:
            entries.append(opaque_value(self._space))
        await self._put("JobOrderList", good(entries, ua.VariantType.ExtensionObject, is_array=True))
        responses = [self._response(job) for job in self._jobs.values() if job.state not in NOT_STARTED]
        await self._space.write(
            self._space.shop(f"{self._results.Identifier}.JobOrderResponseList"),
            good(responses, ua.VariantType.ExtensionObject, is_array=True),
        )

    # Commands.

    def _callback(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def called(_object: ua.NodeId, *arguments: ua.Variant) -> Any:
            return await self.call(name, list(arguments))

        return called

    def _check_arguments(self, name: str, arguments: list[ua.Variant]) -> None:
        """As strictly as servers do that check types; asyncua does not."""
        if len(arguments) < 2:
            raise Refused("BadArgumentsMissing")
        if len(arguments) > 2:
            raise Refused("BadTooManyArguments")
        target, comment = arguments
        if name in WITH_ORDER:
            fits = isinstance(target.Value, ua.ISA95JobOrderDataType)
        else:
            fits = target.VariantType == ua.VariantType.String and isinstance(target.Value, str)
        is_texts = comment.VariantType == ua.VariantType.LocalizedText and isinstance(comment.Value, list)
        if not fits or not (is_texts or comment.VariantType == ua.VariantType.Null):
            raise Refused("BadInvalidArgument")

    async def _carry_out(self, name: str, target: Any, job_id: str) -> Return:
        if name == "Update":
            return await self._update(target)
        if name in WITH_ORDER:
            starts = name == "StoreAndStart"
            return await self._store(target, JobState.AllowedToStart if starts else JobState.NotAllowedToStart)
        job = self._jobs.get(job_id)
        if job is None:
            return Return.UNKNOWN_JOB
        allowed, state = COMMANDS[name]
        if job.state not in allowed:
            return Return.INVALID_STATE
        if state is REMOVED:
            await self._remove(job)
        else:
            await self._move(job, state)
        return Return.OK

    async def _store(self, order: Any, state: JobState) -> Return:
        if not order.JobOrderID or order.JobOrderID in self._jobs or len(self._jobs) >= MAX_JOBS:
            return Return.CANNOT_ACCEPT
        job = Job(order, state, next(self._numbers), time.monotonic())
        self._jobs[order.JobOrderID] = job
        await self._tell_and_publish(job)
        return Return.OK

    async def _update(self, order: Any) -> Return:
        job = self._jobs.get(order.JobOrderID)
        if job is None:
            return Return.UNKNOWN_JOB
        if job.state not in NOT_STARTED:
            return Return.INVALID_STATE
        job.order = order
        await self.publish()
        return Return.OK

    async def _remove(self, job: Job) -> None:
        del self._jobs[job.id]
        tell(f"JOB {self._machine} {job.id} removed")
        await self.publish()

    async def _move(self, job: Job, state: JobState) -> None:
        was_under_way = job.state in (JobState.Running, JobState.Interrupted)
        job.state, job.since = state, time.monotonic()
        if state == JobState.Running and job.started is None:
            job.started = datetime.now(timezone.utc)
        if state in (JobState.Ended, JobState.Aborted):
            job.ended = datetime.now(timezone.utc)
        if was_under_way or state == JobState.Running:
            await self._on_change(job)
        await self._tell_and_publish(job)

    async def _tell_and_publish(self, job: Job) -> None:
        tell(f"JOB {self._machine} {job.id} {job.state.name}")
        await self.publish()

    # The machine's choice.

    def _is_busy(self) -> bool:
        return any(job.state in (JobState.Running, JobState.Interrupted) for job in self._jobs.values())

    def _next_job(self) -> Optional[Job]:
        ripe = time.monotonic() - START_DELAY_S
        jobs = [j for j in self._jobs.values() if j.state == JobState.AllowedToStart and j.since <= ripe]
        return min(jobs, key=Job.precedence, default=None)

    # Structures.

    async def _put(self, name: str, value: ua.DataValue) -> None:
        await self._space.write(self._space.shop(f"{self._control.Identifier}.{name}"), value)

    @staticmethod
    def _states(job: Job) -> list[Any]:
        """One entry, the top level, whose browse path is empty; no substates are offered."""
        state = ua.ISA95StateDataType()
        state.BrowsePath = ua.RelativePath()
        state.StateText = ua.LocalizedText(job.state.name)
        state.StateNumber = int(job.state)
        return [state]

    def _with_state(self, job: Job) -> Any:
        entry = ua.ISA95JobOrderAndStateDataType()
        entry.JobOrder = job.order
        entry.State = self._states(job)
        return entry

    def _response(self, job: Job) -> Any:
        response = ua.ISA95JobResponseDataType()
        response.JobResponseID = f"{job.id}/response"
        response.JobOrderID = job.id
        response.StartTime = job.started
        response.EndTime = job.ended
        response.JobState = self._states(job)
        return response

    # Results.

    async def _response_by_id(self, _object: ua.NodeId, *arguments: ua.Variant) -> Any:
        job = self._jobs.get(arguments[0].Value) if len(arguments) == 1 else None
        if job is None or job.state in NOT_STARTED:
            nothing = ua.Variant(ua.ExtensionObject(), ua.VariantType.ExtensionObject)
            return [nothing, ua.Variant(int(Return.UNKNOWN_JOB), ua.VariantType.UInt64)]
        return [
            ua.Variant(self._response(job), ua.VariantType.ExtensionObject),
            ua.Variant(int(Return.OK), ua.VariantType.UInt64),
        ]

    async def _responses_by_state(self, _object: ua.NodeId, *arguments: ua.Variant) -> Any:
        asked = {s.StateNumber for s in arguments[0].Value or []} if len(arguments) == 1 else set()
        jobs = [j for j in self._jobs.values() if j.state in asked and j.state not in NOT_STARTED]
        responses = [self._response(job) for job in jobs]
        return [
            ua.Variant(responses, ua.VariantType.ExtensionObject, is_array=True),
            ua.Variant(int(Return.OK), ua.VariantType.UInt64),
        ]


def dispatch_type_methods(space: Space, controls: dict[ua.NodeId, JobControl]) -> None:
    """Clients may name a method by its node on the type, together with the object that it is for."""
    receiver_type = space.standard(ISA95_V2, 1002)
    for declaration in space.declarations(receiver_type):
        name = declaration.BrowseName.Name
        if declaration.NodeClass == ua.NodeClass.Method and name in METHODS:
            space.on_call(declaration.NodeId, _dispatcher(name, controls))


def _dispatcher(name: str, controls: dict[ua.NodeId, JobControl]) -> Callable[..., Awaitable[Any]]:
    async def called(target: ua.NodeId, *arguments: ua.Variant) -> Any:
        control = controls.get(target)
        if control is None:
            return ua.StatusCode(ua.StatusCodes.BadMethodInvalid)
        return await control.call(name, list(arguments))

    return called


# --- first edition --------------------------------------------------------------------------------

V1_JOBS = ("OLD-1", "OLD-2")
# The first edition has ISA95JobOrderDataType as i=3008 as well; its encoding is of our making.
V1_ORDER_TYPE = 3008
V1_ORDER_ENCODING = 5016


def build_first_edition(space: Space, machine: str, blocks: ua.NodeId) -> None:
    """Job management whose list can be read, and whose methods nobody should call.

    The standard's first edition has the one method ReceiveJobOrder, with a command as an argument;
    Store is here as well, for clients that go by the name alone.
    """
    management = space.add_object(
        space.shop(f"{blocks.Identifier}.JobManagement"),
        blocks,
        space.name(ISA95_V1, "JobManagement"),
        HAS_ADD_IN,
    )
    control = space.add_object(
        space.shop(f"{management.Identifier}.JobOrderControl"),
        management,
        space.name(ISA95_V1, "JobOrderControl"),
    )
    space.add_variable(
        space.shop(f"{control.Identifier}.JobOrderList"),
        control,
        space.name(ISA95_V1, "JobOrderList"),
        ua.Variant(
            [_first_edition_order(space, job) for job in V1_JOBS],
            ua.VariantType.ExtensionObject,
            is_array=True,
        ),
        space.standard(ISA95_V1, V1_ORDER_TYPE),
    )
    for name in ("Store", "ReceiveJobOrder"):
        method = space.add(
            space.shop(f"{control.Identifier}.{name}"),
            control,
            ua.NodeId(ua.ObjectIds.HasComponent),
            space.name(ISA95_V1, name),
            ua.MethodAttributes(),
            ua.NodeClass.Method,
        )
        space.on_call(method, _forbidden(machine, name))


def _first_edition_order(space: Space, job: str) -> ua.ExtensionObject:
    """An id and a description, both strings, and then nothing of what the second edition has."""
    texts = (job.encode(), b"stored by other means")
    body = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return ua.ExtensionObject(TypeId=space.standard(ISA95_V1, V1_ORDER_ENCODING), Body=body)


def _forbidden(machine: str, name: str) -> Callable[..., Awaitable[Any]]:
    async def called(_object: ua.NodeId, *_arguments: ua.Variant) -> Any:
        tell(f"FORBIDDEN v1 {name} {machine}")
        return [ua.Variant(int(Return.OK), ua.VariantType.UInt64)]

    return called
