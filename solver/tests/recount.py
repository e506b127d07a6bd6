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


def weights_of(inst):
    """What each measure weighs: the cost in fen where nothing is said."""
    given = inst.get("objective") or {"cost": 1, "tardiness": 1}
    names = ["cost", "tardiness", "rejection", "makespan", "setup", "late", "carbon"]
    return {name: given.get(name, 1 if name == "rejection" else 0) for name in names}


def cost_of(inst, plan):
    jobs = {j["id"]: j for j in inst["jobs"]}
    machines = {(m["id"], place): m for m in inst["machines"] for place in range(m.get("places") or 1)}
    weights = weights_of(inst)
    matrices = [inst["setup"]] + inst.get("setup_matrices", [])
    index = {m["id"]: i for i, m in enumerate(inst["machines"])}
    measures, setups, at = dict.fromkeys(weights, 0), {}, {}
    on = lambda a: (a["machine"], a.get("place") or 0)
    open = {name: open_ticks(machine) for name, machine in machines.items()}
    lines = {name: [] for name in machines}
    for a in plan["assignments"]:
        lines[on(a)].append(a)
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
            measures["setup"] += need
            measures["cost"] += need * machine["setup_cost_per_tick"]
            measures["carbon"] += need * machine.get("setup_carbon_per_tick", 0)
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
            measures["rejection"] += job["rejection_cost"]
            continue
        if not all(mine):
            return None
        ready, place, charge = job["release"], job.get("origin"), 0
        for k, (op, a) in enumerate(zip(job["ops"], mine)):
            machine = machines[on(a)]
            modes = [m for m in op["modes"] if m["machine"] == index[a["machine"]]]
            if not modes:
                return None
            mode = modes[0]
            if place is not None:
                ready += inst["transport"][place][machine["plant"]]
                trip = inst["transport_cost"][place][machine["plant"]]
                measures["cost"] += trip
                charge += inst["transport_charge"][place][machine["plant"]] if "transport_charge" in inst else trip
                if "transport_carbon" in inst:
                    measures["carbon"] += inst["transport_carbon"][place][machine["plant"]]
            if a["start"] < max(ready, mode.get("earliest") or 0) or a["end"] > inst["horizon"]:
                return None
            if end_of(open[on(a)], a["start"], setups[job["id"], k] + mode["duration"], op["splittable"]) != a["end"]:
                return None
            fixed = op.get("fixed")
            stands = (index[a["machine"]], a.get("place") or 0, a["start"])
            if fixed and (fixed["machine"], fixed.get("place") or 0, fixed["start"]) != stands:
                return None
            measures["cost"] += mode["cost"]
            measures["carbon"] += mode.get("carbon", 0)
            charge += mode["charge"] if "charge" in mode else mode["cost"]
            ready, place = a["end"], machine["plant"]
        if job.get("deadline") is not None and ready > job["deadline"]:
            return None
        if job.get("budget") is not None and charge > job["budget"]:
            return None
        measures["makespan"] = max(measures["makespan"], ready)
        if ready > job["due"]:
            measures["late"] += 1
            measures["tardiness"] += job["tardiness_weight"] * (ready - job["due"]) + job.get("late_cost", 0)
    if not resources_suffice(inst, jobs, plan, setups, open, on):
        return None
    return sum(weight * measures[name] for name, weight in weights.items())


def resources_suffice(inst, jobs, plan, setups, open, on):
    """Whether every resource is there, and has a unit for everyone who holds it, tick by tick."""
    for r, resource in enumerate(inst.get("resources", [])):
        there, taken = set(open_ticks(resource)), {}
        for a in plan["assignments"]:
            for need in jobs[a["job"]]["ops"][a["op"]].get("needs", []):
                if need["resource"] != r:
                    continue
                works = set(open[on(a)])
                left = setups[a["job"], a["op"]] if need["during"] == "setup" else None
                for t in range(a["start"], a["end"]):
                    if left == 0:
                        break
                    if left and t in works:
                        left -= 1
                    taken[t] = taken.get(t, 0) + 1
                    if t in works and t not in there:
                        return False
        if any(units > resource.get("units", 1) for units in taken.values()):
            return False
    return True


if __name__ == "__main__":
    for line in sys.stdin:
        case = json.loads(line)
        print(json.dumps(cost_of(case["instance"], case["plan"])))
