"""Recounts plans in plain Python, sharing nothing with the crate: one JSON case a line in, one verdict a line out.

A case is {"instance", "plan"} in the exchange format with its optional fields; a verdict is the plan's cost, or null
where a rule is broken.
"""
import bisect
import json
import sys


def open_ticks(machine):
    return [t for a, b in machine["open"] for t in range(a, b)]


def end_of(open, start, work, splittable):
    """The occupation's end, by counting open ticks one by one."""
    first = bisect.bisect_left(open, start)
    ticks = open[first:first + work]
    if len(ticks) < work or ticks[0] != start:
        return None
    if not splittable and ticks[-1] - ticks[0] != work - 1:
        return None
    return ticks[-1] + 1


def cost_of(inst, plan):
    jobs = {j["id"]: j for j in inst["jobs"]}
    machines = {m["id"]: m for m in inst["machines"]}
    matrices = [inst["setup"]] + inst.get("setup_matrices", [])
    index = {m["id"]: i for i, m in enumerate(inst["machines"])}
    total, setups, at = 0, {}, {}
    open = {name: open_ticks(machine) for name, machine in machines.items()}
    lines = {name: [] for name in machines}
    for a in plan["assignments"]:
        lines[a["machine"]].append(a)
    out = plan["rejected"]
    if len(set(out)) != len(out):
        return None
    for name, machine in machines.items():
        mine = sorted(lines[name], key=lambda a: a["start"])
        family = machine.get("initial_family")
        for i, a in enumerate(mine):
            if i and a["start"] < mine[i - 1]["end"]:
                return None
            wanted = jobs[a["job"]]["ops"][a["op"]]["family"]
            need = 0 if family is None else matrices[machine.get("setup_matrix") or 0][family][wanted]
            total += need * machine["setup_cost_per_tick"]
            setups[a["job"], a["op"]] = need
            family = wanted
    for a in plan["assignments"]:
        if (a["job"], a["op"]) in at:
            return None
        at[a["job"], a["op"]] = a
    for job in inst["jobs"]:
        mine = [at.get((job["id"], k)) for k in range(len(job["ops"]))]
        if job["id"] in out:
            if any(mine) or job.get("rejection_cost") is None:
                return None
            total += job["rejection_cost"]
            continue
        if not all(mine):
            return None
        ready, place, charge = job["release"], job.get("origin"), 0
        for k, (op, a) in enumerate(zip(job["ops"], mine)):
            machine = machines[a["machine"]]
            modes = [m for m in op["modes"] if m["machine"] == index[a["machine"]]]
            if not modes:
                return None
            mode = modes[0]
            if place is not None:
                ready += inst["transport"][place][machine["plant"]]
                total += inst["transport_cost"][place][machine["plant"]]
                charge += inst["transport_cost"][place][machine["plant"]]
            if a["start"] < max(ready, mode.get("earliest") or 0) or a["end"] > inst["horizon"]:
                return None
            if end_of(open[a["machine"]], a["start"], setups[job["id"], k] + mode["duration"], op["splittable"]) != a["end"]:
                return None
            fixed = op.get("fixed")
            if fixed and (fixed["machine"], fixed["start"]) != (index[a["machine"]], a["start"]):
                return None
            total += mode["cost"]
            charge += mode["charge"] if "charge" in mode else mode["cost"]
            ready, place = a["end"], machine["plant"]
        if job.get("deadline") is not None and ready > job["deadline"]:
            return None
        if job.get("budget") is not None and charge > job["budget"]:
            return None
        total += job["tardiness_weight"] * max(0, ready - job["due"])
    return total


if __name__ == "__main__":
    for line in sys.stdin:
        case = json.loads(line)
        print(json.dumps(cost_of(case["instance"], case["plan"])))
