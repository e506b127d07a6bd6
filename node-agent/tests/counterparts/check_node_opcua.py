#!/usr/bin/env python3
"""Runs the shipped agent against a machine on node-opcua, another stack than the tests' own: `check_node_opcua.py AGENT FOLDER`.

Reads the machine's states, through a kill and a restart, without security and with it, and sees each trouble named.
Packages are put into FOLDER, by npm.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Callable, Optional

PACKAGE = "node-opcua@2.182.2"
MACHINE = Path(__file__).with_name("node_opcua_machine.js")
PATIENCE_S = 40.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """The machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.start()

    def start(self) -> None:
        # Node looks for packages beside the script.
        script = shutil.copy(MACHINE, self.folder)
        command = ["node", script, str(self.port), str(self.folder / "pki")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, **pipes)
        while (line := self.process.stdout.readline()) != "READY\n":
            assert line, "the server has ended"

    def turn(self, state: str) -> None:
        self.process.stdin.write(f"{state}\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Agent:
    """The shipped agent, with no coordinator."""

    def __init__(self, program: Path, folder: Path, server: Server, opcua: str) -> None:
        self.port = free_port()
        config = folder / "agent.toml"
        config.write_text(
            f'data_dir = "{folder}"\nhttp.listen = "127.0.0.1:{self.port}"\ncoordinator.addresses = ["127.0.0.1:1"]\n'
            '[[agent]]\nplant = "plant"\n[[agent.machine]]\nid = "m"\nadapter = "opcua"\n'
            f'opcua = {{ url = "opc.tcp://127.0.0.1:{server.port}"{opcua} }}\n'
        )
        command = [program, "--config", config, "--insecure-dev"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def machine(self) -> Optional[dict]:
        try:
            page = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5)
        except urllib.error.HTTPError as unwell:
            page = unwell
        except OSError:
            return None
        return json.load(page)["plants"][0]["machines"].get("m")

    def until(self, what: str, holds: Callable[[dict], bool]) -> None:
        deadline, machine = time.monotonic() + PATIENCE_S, None
        while time.monotonic() < deadline:
            machine = self.machine()
            if machine and holds(machine):
                print(f"  {what}", flush=True)
                return
            time.sleep(0.1)
        sys.exit(f"never: {what}; last: {json.dumps(machine, indent=2)}")

    def until_state(self, state: str) -> None:
        self.until(state, lambda machine: machine["machine_state"] == state)

    def until_trouble(self, words: str) -> None:
        self.until(words, lambda machine: words in (machine["trouble"] or ""))


def follows(agent: Agent, server: Server) -> None:
    for state, told in [("Running", "producing"), ("Interrupted", "held"), ("Running", "producing"), ("Ended", "idle")]:
        server.turn(state)
        agent.until_state(told)


def main() -> None:
    program, packages = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    packages.mkdir(parents=True, exist_ok=True)
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", packages, PACKAGE]
    subprocess.run(install, check=True)
    server = Server(packages)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        print("without security")
        with Agent(program, data, server, ', security = "none"') as agent:
            follows(agent, server)
            server.kill()
            agent.until_state("unknown")
            server.start()
            server.turn("Running")
            agent.until_state("producing")
        print("signed and encrypted")
        own = data / "plant" / "opcua"
        with Agent(program, data, server, "") as agent:
            agent.until_trouble("the server's certificate is not trusted")
        for certificate in (own / "rejected").iterdir():
            certificate.rename(own / "trusted" / certificate.name)
        with Agent(program, data, server, "") as agent:
            agent.until_trouble("does not name the address")
        with Agent(program, data, server, ", pinned_certificate = true") as agent:
            follows(agent, server)
    server.kill()
    print("node-opcua is read as asyncua is")


if __name__ == "__main__":
    main()
