#!/usr/bin/env python3
"""The peer on flexible job shops: OR-Tools CP-SAT with the textbook model.

    cpsat_fjsp.py instance.fjs --seconds 10 --workers 2      prints {"objective", "bound"}

One optional interval for each operation and machine, exactly one of them present, no overlap on a machine.
"""
import argparse
import json
from pathlib import Path

from ortools.sat.python import cp_model

from bench import read_fjs


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("instance", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    jobs = read_fjs(args.instance)
    horizon = sum(max(durations.values()) for job in jobs for durations in job)
    model, lines, ends = cp_model.CpModel(), {}, []
    for job in jobs:
        ready = 0
        for durations in job:
            start, end = model.new_int_var(0, horizon, ""), model.new_int_var(0, horizon, "")
            chosen = []
            for machine, duration in durations.items():
                here = model.new_bool_var("")
                chosen.append(here)
                lines.setdefault(machine, []).append(model.new_optional_interval_var(start, duration, end, here, ""))
            model.add_exactly_one(chosen)
            model.add(start >= ready)
            ready = end
        ends.append(ready)
    for line in lines.values():
        model.add_no_overlap(line)
    makespan = model.new_int_var(0, horizon, "")
    model.add_max_equality(makespan, ends)
    model.minimize(makespan)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = args.workers
    solver.parameters.max_time_in_seconds = args.seconds
    found = solver.solve(model) in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    objective = int(solver.objective_value) if found else horizon
    print(json.dumps({"objective": objective, "bound": int(solver.best_objective_bound)}))


if __name__ == "__main__":
    main()
