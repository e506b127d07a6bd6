#!/usr/bin/env python3
"""A machine tool to test the OPC UA adapter against: a server on the loopback interface.

Machines after OPC 40501 (MachineTool), OPC 40001 (Machinery) and OPC 10031-4 (ISA-95 job control), of
two generations. Prints READY when it listens, and then a line for each event. Commands come in on
standard input, one JSON object a line, each answered by a line `DONE` or `ERROR text`; README.md beside
this file lists them. Ends when its input ends, or on SIGTERM.
"""

from __future__ import annotations

import gc

# Building the address space makes hundreds of thousands of objects that stay. Looking through them
# for garbage over and over takes longer than making them.
gc.disable()

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Awaitable, Callable, Optional

from asyncua import ua

from opcua_jobs import JobState, dispatch_type_methods
from opcua_machine import Features, Machine, find_variable, set_variable, spoil_variable
from opcua_server import Access, CounterpartServer, adapt_asyncua, tell
from opcua_space import (
    GENERATIONS,
    ISA95_V1,
    ISA95_V2,
    MACHINERY,
    ORGANIZES,
    SHOP,
    Space,
    SpaceCache,
    import_generation,
    register_isa95_structures,
    restore_namespaces,
)

Command = dict[str, Any]

MACHINE_CYCLE_S = 0.05
UNDER_WAY = frozenset({JobState.Running, JobState.Interrupted})


# --- the command line -----------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--generation", choices=sorted(GENERATIONS), default="1.02")
    parser.add_argument("--jobs", choices=("v2", "v1", "none"), help="default: v2 for 1.02, none for 1.01")
    parser.add_argument("--machines", default="5AX-01", metavar="NAME[,NAME...]")
    parser.add_argument("--extra-namespaces", type=int, default=0, metavar="K")
    parser.add_argument("--item-state", choices=("yes", "no"), default="yes")
    parser.add_argument("--vendor-nodes", choices=("yes", "no"), default="yes")
    parser.add_argument("--vendor-type", action="store_true", help="derive the machines' type from the standard's")
    parser.add_argument("--foreign-item", action="store_true", help="put something among them that is no machine")
    parser.add_argument("--without-methods", default="", metavar="NAME[,NAME...]", help="of job control")
    parser.add_argument("--security", choices=("none", "basic256sha256"), default="none")
    parser.add_argument("--certificate", type=Path, metavar="FILE.der")
    parser.add_argument("--private-key", type=Path, metavar="FILE.pem")
    parser.add_argument("--trust", type=Path, metavar="DIR", help="accept only the certificates in it")
    parser.add_argument("--user", metavar="NAME:PASSWORD")
    parser.add_argument("--max-sessions", type=int, metavar="N")
    parser.add_argument("--reattach", choices=("yes", "no"), default="yes", help="take up lost sessions again")
    parser.add_argument("--cache", type=Path, default=_default_cache(), metavar="DIR")
    parser.add_argument("--no-cache", action="store_true")
    arguments = parser.parse_args()
    _check(parser, arguments)
    return arguments


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    generation = GENERATIONS[arguments.generation]
    if arguments.jobs is None:
        arguments.jobs = "v2" if generation.has_job_management else "none"
    if arguments.jobs == "v2" and not generation.has_job_management:
        parser.error("--jobs v2 needs --generation 1.02")
    if arguments.security != "none" and not (arguments.certificate and arguments.private_key):
        parser.error("--security needs --certificate and --private-key")
    if arguments.user is not None and ":" not in arguments.user:
        parser.error("--user takes NAME:PASSWORD")


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "millpool-opcua-counterpart"


def _access(arguments: argparse.Namespace) -> Access:
    user, _, password = (arguments.user or "").partition(":")
    return Access(
        encrypted=arguments.security != "none",
        certificate=arguments.certificate,
        private_key=arguments.private_key,
        trust=arguments.trust,
        user=user or None,
        password=password or None,
        max_sessions=arguments.max_sessions,
        reattach=arguments.reattach == "yes",
    )


def _features(arguments: argparse.Namespace) -> Features:
    return Features(
        generation=arguments.generation,
        jobs=arguments.jobs,
        item_state=arguments.item_state == "yes",
        vendor_nodes=arguments.vendor_nodes == "yes",
        vendor_type=arguments.vendor_type,
        without_methods=frozenset(filter(None, arguments.without_methods.split(","))),
    )


# --- the server and its machines ------------------------------------------------------------------


async def build_server(arguments: argparse.Namespace) -> CounterpartServer:
    """A server with the types of a generation, and no machine yet."""
    generation = GENERATIONS[arguments.generation]
    folder = None if arguments.no_cache else arguments.cache
    cache = SpaceCache(folder, generation, arguments.extra_namespaces)
    cached = cache.load()
    nodes, namespaces = cached if cached else (None, [])
    server = CounterpartServer(arguments.port, _access(arguments), nodes)
    await server.init()
    if cached:
        await restore_namespaces(server, namespaces)
    else:
        await import_generation(server, generation, arguments.extra_namespaces)
        cache.store(server.iserver.aspace._nodes, await server.get_namespace_array())
    if generation.has_job_management:
        await register_isa95_structures(server, await server.get_namespace_index(ISA95_V2))
    await server.load_identity()
    return server


async def build_space(server: CounterpartServer, jobs: str) -> Space:
    if jobs == "v1":
        await server.register_namespace(ISA95_V1)
    await server.register_namespace(SHOP)
    return Space(server.iserver.aspace, server, await server.get_namespace_array())


async def build_machines(space: Space, arguments: argparse.Namespace) -> dict[str, Machine]:
    features = _features(arguments)
    machines: dict[str, Machine] = {}
    for serial, name in enumerate(arguments.machines.split(","), start=1):
        machines[name] = await Machine.build(space, name, serial, features)
    if arguments.foreign_item:
        folder = space.standard(MACHINERY, 1001)
        space.add_object(space.shop("Bar feeder"), folder, space.name(SHOP, "Bar feeder"), ORGANIZES)
    controls = {m.job_control: m.jobs for m in machines.values() if m.jobs is not None}
    if controls:
        dispatch_type_methods(space, controls)
    return machines


# --- commands -------------------------------------------------------------------------------------


class Commands:
    """What a test may ask for, by the name under `do`."""

    def __init__(self, server: CounterpartServer, space: Space, machines: dict[str, Machine]) -> None:
        self._server = server
        self._space = space
        self._machines = machines
        self._handlers: dict[str, Callable[[Command], Awaitable[None]]] = {
            "item": lambda c: self._machine(c).set_item_state(c["state"]),
            "mode": lambda c: self._machine(c).set_mode(c["mode"]),
            "tool_mode": lambda c: self._machine(c).set_tool_mode(c["mode"]),
            "program": lambda c: self._machine(c).set_program(c["name"], c["state"]),
            "stack_light": lambda c: self._machine(c).set_light(
                c["light"], c["on"], c.get("mode", "continuous")
            ),
            "undecodable": lambda c: self._machine(c).make_undecodable(c.get("on", True)),
            "set": lambda c: set_variable(self._space, self._variable(c), c["value"]),
            "bad": lambda c: spoil_variable(self._space, self._variable(c), c["status"]),
            "finish_job": lambda c: self._change_job(c, UNDER_WAY, JobState.Ended),
            "interrupt_job": lambda c: self._change_job(c, frozenset({JobState.Running}), JobState.Interrupted),
            "abort_job": lambda c: self._change_job(c, UNDER_WAY, JobState.Aborted),
            "run_jobs": self._run_jobs,
            "jobs": self._print_jobs,
            "silence": self._silence,
            "drop": self._drop,
            "namespaces": self._print_namespaces,
        }

    async def obey(self, line: str) -> None:
        """Carries out one line, and says how it went."""
        try:
            command = json.loads(line)
            await self._handlers[command["do"]](command)
        except KeyError as error:
            tell(f"ERROR unknown or missing: {error}")
        except Exception as error:
            tell(f"ERROR {type(error).__name__}: {error}".replace("\n", " "))
        else:
            tell("DONE")

    def _machine(self, command: Command) -> Machine:
        return self._machines[command["machine"]]

    def _variable(self, command: Command) -> ua.NodeId:
        return find_variable(self._space, command["node"])

    async def _change_job(self, command: Command, allowed: frozenset[JobState], state: JobState) -> None:
        jobs = self._machine(command).jobs
        if jobs is None:
            raise ValueError("this machine has no job control")
        await jobs.change(command["id"], allowed, state)

    async def _run_jobs(self, command: Command) -> None:
        for machine in self._machines.values():
            if machine.jobs is not None:
                machine.jobs.runs_jobs = command["on"]

    async def _print_jobs(self, command: Command) -> None:
        jobs = self._machine(command).jobs
        tell(f"JOBS {json.dumps(jobs.summary() if jobs is not None else [])}")

    async def _silence(self, command: Command) -> None:
        self._server.set_silent(command["on"])

    async def _drop(self, _command: Command) -> None:
        self._server.drop_connections()

    async def _print_namespaces(self, _command: Command) -> None:
        tell(f"NAMESPACES {json.dumps(self._space.namespaces)}")


# --- running --------------------------------------------------------------------------------------


def read_lines(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[Optional[str]]) -> None:
    """Feeds standard input into the queue, and then a None.

    A thread, since an event loop cannot wait for every kind of input; and without `sys.stdin`, whose
    lock a thread that waits for ever would still hold when the interpreter wants to close it.
    """
    pending = b""
    while chunk := os.read(0, 65536):
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            loop.call_soon_threadsafe(lines.put_nowait, line.decode())
    loop.call_soon_threadsafe(lines.put_nowait, None)


async def run_machines(machines: dict[str, Machine]) -> None:
    while True:
        await asyncio.sleep(MACHINE_CYCLE_S)
        for machine in machines.values():
            if machine.jobs is not None:
                await machine.jobs.take_up_a_job()


async def serve(arguments: argparse.Namespace) -> None:
    server = await build_server(arguments)
    space = await build_space(server, arguments.jobs)
    machines = await build_machines(space, arguments)
    await server.start()
    gc.freeze()
    gc.enable()

    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[Optional[str]] = asyncio.Queue()
    loop.add_signal_handler(signal.SIGTERM, lines.put_nowait, None)
    threading.Thread(target=read_lines, args=(loop, lines), daemon=True).start()
    machine_work = asyncio.create_task(run_machines(machines))

    tell("READY")
    commands = Commands(server, space, machines)
    while (line := await lines.get()) is not None:
        if line.strip():
            await commands.obey(line)
    machine_work.cancel()
    # Not server.stop(): that waits for the clock, and the connections go with the process anyway.
    server.drop_connections()


def main() -> None:
    adapt_asyncua()
    try:
        asyncio.run(serve(parse_arguments()))
    except KeyboardInterrupt:
        sys.exit(1)


if __name__ == "__main__":
    main()
