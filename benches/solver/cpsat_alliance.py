#!/usr/bin/env python3
"""The peer on an alliance's week: OR-Tools CP-SAT, modelled as its users would.

    cpsat_alliance.py instance.json --hint plan.json --seconds 60 --workers 2      prints {"objective", "bound"}

One optional interval for each operation and machine, no overlap with it or with the closed times, a circuit on
each machine for the changeovers, a literal for each pair of machines that a part travels between. The hint names
every decision of a plan, so that the search begins from it. Splittable operations are refused.
"""
import argparse
import json
import sys
import time

from ortools.sat.python import cp_model


class Peer:
    def __init__(self, instance):
        self.instance, self.model = instance, cp_model.CpModel()
        self.terms, self.on = [], [[] for _ in instance["machines"]]
        self.hinted, self.circuits, self.trips = {}, [], []
        for number, job in enumerate(instance["jobs"]):
            self.add_job(number, job)
        for machine in range(len(instance["machines"])):
            self.add_machine(machine)
        self.model.minimize(sum(self.terms))

    def add_job(self, number, job):
        model, horizon = self.model, self.instance["horizon"]
        kept = model.new_bool_var("") if job["rejection_cost"] is not None else model.new_constant(1)
        job["kept"], job["at"] = kept, []
        if job["rejection_cost"] is not None:
            self.terms.append(job["rejection_cost"] * (1 - kept))
        before = None
        for op in job["ops"]:
            if op["splittable"]:
                sys.exit("the peer's model has no splittable operations")
            start, end = model.new_int_var(job["release"], horizon, ""), model.new_int_var(0, horizon, "")
            modes = []
            for mode in op["modes"]:
                here, setup = model.new_bool_var(""), model.new_int_var(0, horizon, "")
                size = model.new_int_var(mode["duration"], horizon, "")
                interval = model.new_optional_interval_var(start, size, end, here, "")
                model.add(size == setup + mode["duration"]).only_enforce_if(here)
                self.terms.append(mode["cost"] * here)
                modes.append((mode["machine"], here))
                self.on[mode["machine"]].append((here, start, end, setup, op["family"], interval, size, mode["duration"]))
            model.add(sum(here for _, here in modes) == kept)
            if before:
                self.add_trips(before, (start, modes), kept)
            before = (end, modes)
            job["at"].append((start, end, modes))
        late = model.new_int_var(0, horizon, "")
        model.add(late >= before[0] - job["due"]).only_enforce_if(kept)
        self.terms.append(job["tardiness_weight"] * late)
        if job["deadline"] is not None:
            model.add(before[0] <= job["deadline"]).only_enforce_if(kept)
        job["late"] = late

    def add_trips(self, before, after, kept):
        """A literal a pair of plants that the part may travel between."""
        plant = [machine["plant"] for machine in self.instance["machines"]]
        from_, to = {}, {}
        for modes, by_plant in ((before[1], from_), (after[1], to)):
            for machine, here in modes:
                by_plant.setdefault(plant[machine], []).append(here)
        pairs = []
        for a, left in from_.items():
            for b, arrived in to.items():
                both = self.model.new_bool_var("")
                self.model.add(sum(left) >= 1).only_enforce_if(both)
                self.model.add(sum(arrived) >= 1).only_enforce_if(both)
                time_ = self.instance["transport"][a][b]
                self.model.add(after[0] >= before[0] + time_).only_enforce_if(both)
                self.terms.append(self.instance["transport_cost"][a][b] * both)
                pairs.append(both)
                self.trips.append((both, left, arrived))
        self.model.add(sum(pairs) == kept)

    def add_machine(self, number):
        machine, model = self.instance["machines"][number], self.model
        closed, at = [], 0
        for a, b in machine["open"] + [[self.instance["horizon"], self.instance["horizon"]]]:
            if a > at:
                closed.append(model.new_fixed_size_interval_var(at, a - at, ""))
            at = b
        items = self.on[number]
        model.add_no_overlap([item[5] for item in items] + closed)
        idle = model.new_bool_var("")
        arcs, of = [(0, 0, idle)], {}
        needs = [[] for _ in items]
        for i, (here, start, end, setup, family, *_) in enumerate(items, 1):
            arcs.append((i, i, ~here))
            model.add_implication(here, ~idle)
            of[0, i], of[i, 0] = model.new_bool_var(""), model.new_bool_var("")
            arcs += [(0, i, of[0, i]), (i, 0, of[i, 0])]
            first = machine["initial_family"]
            needs[i - 1].append((0 if first is None else self.instance["setup"][first][family], of[0, i]))
            for j, other in enumerate(items, 1):
                if i != j:
                    of[i, j] = model.new_bool_var("")
                    arcs.append((i, j, of[i, j]))
                    model.add(other[1] >= end).only_enforce_if(of[i, j])
                    needs[j - 1].append((self.instance["setup"][family][other[4]], of[i, j]))
        model.add_circuit(arcs)
        for item, need in zip(items, needs):
            model.add(item[3] == sum(ticks * arc for ticks, arc in need)).only_enforce_if(item[0])
            self.terms += [ticks * machine["setup_cost_per_tick"] * arc for ticks, arc in need if ticks]
        self.circuits.append((idle, of, items))

    def hint(self, plan):
        """Every variable as the plan has it."""
        index = {machine["id"]: i for i, machine in enumerate(self.instance["machines"])}
        at = {(a["job"], a["op"]): a for a in plan["assignments"]}
        value, of_item = {}, {}
        for job in self.instance["jobs"]:
            kept = job["id"] not in plan["rejected"]
            value[job["kept"].index] = int(kept)
            last = at.get((job["id"], len(job["ops"]) - 1))
            value[job["late"].index] = max(0, last["end"] - job["due"]) if last else 0
            for k, (start, end, modes) in enumerate(job["at"]):
                a = at.get((job["id"], k))
                value[start.index] = a["start"] if a else job["release"]
                value[end.index] = a["end"] if a else job["release"]
                for machine, here in modes:
                    value[here.index] = int(bool(a) and index[a["machine"]] == machine)
        for both, left, arrived in self.trips:
            value[both.index] = int(any(value[x.index] for x in left) and any(value[x.index] for x in arrived))
        for number, (idle, of, items) in enumerate(self.circuits):
            for item in items:
                value[item[3].index], value[item[6].index] = 0, item[7]
            present = [i for i, item in enumerate(items, 1) if value[item[0].index]]
            order = sorted(present, key=lambda i: value[items[i - 1][1].index])
            value[idle.index] = int(not order)
            used = set(zip([0] + order, order + [0])) if order else set()
            for arc, literal in of.items():
                value[literal.index] = int(arc in used)
            family = self.instance["machines"][number]["initial_family"]
            for i in order:
                item = items[i - 1]
                value[item[3].index] = 0 if family is None else self.instance["setup"][family][item[4]]
                value[item[6].index] = value[item[3].index] + item[7]
                family = item[4]
        for number in range(len(self.model.proto.variables)):
            if number in value:
                self.model.add_hint(self.model.get_int_var_from_proto_index(number), value[number])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("instance")
    parser.add_argument("--hint")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    begun = time.time()
    with open(args.instance) as file:
        peer = Peer(json.load(file))
    if args.hint:
        with open(args.hint) as file:
            peer.hint(json.load(file))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = args.workers
    solver.parameters.max_time_in_seconds = args.seconds
    # A large model's presolve would take the whole time otherwise, and no plan would come.
    solver.parameters.cp_model_probing_level = 0
    solver.parameters.symmetry_level = 0
    solver.parameters.max_presolve_iterations = 1
    status = solver.solve(peer.model)
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    bound = max(0, int(solver.best_objective_bound))
    built = round(time.time() - begun - solver.wall_time, 1)
    print(json.dumps({"objective": int(solver.objective_value) if found else None, "bound": bound, "built": built}))


if __name__ == "__main__":
    main()
