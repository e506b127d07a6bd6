#!/usr/bin/env python3
"""Measures millpool-solve, and its peer in the same run.

    bench.py fjsp      [--seconds 10] [--families mk,dpp,la,behnke] [--every 1] [--peer-every 0]
    bench.py alliance  [--seconds 60] [--machines 12,60,300,3000] [--seeds 1,2,3] [--peer]
    bench.py ablation  [--seconds 60] [--machines 12,60,300] [--seeds 1]
    bench.py records   schedules shorter than any published: each checked

Every plan is checked here, by code that shares nothing with the solver. The peer is
OR-Tools CP-SAT (pip install -r requirements.txt) with as many workers as millpool-solve has threads; where its
package is absent, the peer's columns say so. Tables are Markdown, on standard output; progress on standard error.
"""
import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "../../solver/tests"))
import recount
SOLVE = HERE / "../../target/release/millpool-solve"
INSTANCE = HERE / "../../target/release/examples/alliance_instance"
PEER_VERSION = "9.15.6755"


def say(text):
    print(text, file=sys.stderr, flush=True)


def millpool(instance, args, plan, check, *more):
    """Solves, has the plan checked, and answers with the closing line."""
    command = [SOLVE, instance, "--seconds", args.seconds, "--threads", args.threads, "--seed", args.seed, "--out", plan, *more]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{instance}: exit code {done.returncode}: {done.stderr.strip()}")
    told = json.loads(done.stdout.strip().splitlines()[-1])
    checked = check(json.loads(plan.read_text()))
    if told["objective"] != checked or told["bound"] > checked:
        sys.exit(f"{instance}: told {told['bound']} <= {told['objective']}, checked {checked}")
    return told


def read_fjs(file):
    """By job, by operation: the duration on each machine, machines as the file counts them."""
    lines = iter(file.read_text().split("\n"))
    count = int(next(lines).split()[0])
    rows = [iter(map(int, line.split())) for line in lines if line.strip()]
    return [[{next(row): next(row) for _ in range(next(row))} for _ in range(next(row))] for row in rows[:count]]


def makespan(jobs, plan):
    """The makespan of a plan for a flexible job shop; stops where a rule is broken."""
    at = {(int(a["job"]), a["op"]): (int(a["machine"]), a["start"], a["end"]) for a in plan["assignments"]}
    assert len(at) == len(plan["assignments"]) == sum(map(len, jobs)), "each operation once"
    for j, job in enumerate(jobs, 1):
        ready = 0
        for k, durations in enumerate(job):
            machine, start, end = at[j, k]
            assert start >= ready and end == start + durations[machine], f"operation {k} of job {j}"
            ready = end
    for machine in {m for m, _, _ in at.values()}:
        line = sorted((start, end) for m, start, end in at.values() if m == machine)
        assert all(a[1] <= b[0] for a, b in zip(line, line[1:])), f"machine {machine} does two at once"
    return max(end for _, _, end in at.values())


def peer(script, instance, args, *more):
    """The peer's objective (None: it found no plan) and bound."""
    command = [sys.executable, HERE / script, instance, "--seconds", args.seconds, "--workers", args.threads, *more]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{instance}: the peer failed: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout)


def peer_is_there():
    try:
        import ortools
    except ImportError:
        say(f"The peer is left out: OR-Tools is not installed (pip install ortools=={PEER_VERSION})")
        return False
    if ortools.__version__ != PEER_VERSION:
        say(f"The peer is OR-Tools {ortools.__version__}, not {PEER_VERSION} as pinned")
    return True


def mean(values):
    return f"{100 * statistics.mean(values):.2f} %" if values else "-"


def fjsp(args):
    known = [row for row in best_known() if any(row["family"].startswith(f) for f in args.families)]
    by_family, news, peers = {}, [], args.peer_every and peer_is_there()
    with tempfile.TemporaryDirectory() as folder:
        for n, row in enumerate(known):
            if n % args.every:
                continue
            file, lb, ub = HERE / f"fjsp/{row['instance']}.fjs", int(row["lb"]), int(row["ub"])
            told = millpool(file, args, Path(folder) / "plan.json", lambda plan: makespan(read_fjs(file), plan))
            cost, bound = told["objective"], told["bound"]
            entry = {"gap": cost / ub - 1, "bound": 1 - bound / lb, "reached": bound >= lb, "own": 1 - bound / cost}
            if peers and n % args.peer_every == 0:
                other = peer("cpsat_fjsp.py", file, args)
                entry |= {"peer_gap": other["objective"] / ub - 1, "peer_bound": 1 - other["bound"] / lb}
            by_family.setdefault(row["family"], []).append(entry)
            if cost < ub or bound > lb:
                news.append(f"| {row['instance']} | {lb} | {bound} | {cost} | {ub} |")
            say(f"{row['instance']:>16} {bound:>6} <= {cost:>6}   known {lb} {ub}   {100 * (cost / ub - 1):.2f} %"
                + (f"   peer {other['bound']} <= {other['objective']}" if "peer_gap" in entry else ""))
    print(f"\n{args.seconds} s, {args.threads} threads\n")
    print("| family | instances | makespan above best known | worst | bound below best known | reached | peer: makespan | peer: bound |")
    print("|---|---|---|---|---|---|---|---|")
    for family, rows in by_family.items():
        column = lambda key: [row[key] for row in rows if key in row]
        print(f"| {family} | {len(rows)} | {mean(column('gap'))} | {100 * max(column('gap')):.2f} % | {mean(column('bound'))} "
              f"| {sum(column('reached'))} | {mean(column('peer_gap'))} | {mean(column('peer_bound'))} |")
    if news:
        print("\n| better than published | lb | bound | makespan | ub |\n|---|---|---|---|---|")
        print("\n".join(news))


def best_known():
    with open(HERE / "fjsp/best-known.csv") as file:
        return list(csv.DictReader(file))


def records(args):
    print("| instance | found | published makespan | published bound |\n|---|---|---|---|")
    for row in best_known():
        plan = HERE / f"records/{row['instance']}.json"
        if plan.exists():
            found = makespan(read_fjs(HERE / f"fjsp/{row['instance']}.fjs"), json.loads(plan.read_text()))
            assert found < int(row["ub"]), f"{row['instance']} is no record"
            print(f"| {row['instance']} | {found} | {row['ub']} | {row['lb']} |")


def drawn(args):
    """Each alliance's week: machines, seed, its file, the instance, and first come's plan."""
    with tempfile.TemporaryDirectory() as folder:
        file, plan = Path(folder) / "instance.json", Path(folder) / "first.json"
        for machines in args.machines:
            for seed in args.seeds:
                with open(file, "w") as out:
                    draw = [INSTANCE, "--machines", machines, "--seed", seed, "--first-come", plan]
                    subprocess.run(list(map(str, draw)), stdout=out, check=True)
                yield machines, seed, file, json.loads(file.read_text()), plan


def ablation(args):
    print(f"{args.seconds} s, {args.threads} threads; costs in millions of fen\n")
    print("| machines | seed | first plan | master alone | search alone | both | bound without master | with |")
    print("|---|---|---|---|---|---|---|---|")
    for machines, seed, file, instance, first in drawn(args):
        price = lambda plan: recount.cost_of(instance, plan)
        solved = lambda *more: millpool(file, args, first.with_name("plan.json"), price, *more)
        start, master = solved("--iterations", 0), solved("--without", "search")
        search, both = solved("--without", "master"), solved()
        row = [told["objective"] for told in (start, master, search, both)] + [search["bound"], both["bound"]]
        print(f"| {machines} | {seed} | " + " | ".join(f"{x / 1e6:.2f}" for x in row) + " |", flush=True)


def alliance(args):
    peers = args.peer and peer_is_there()
    print(f"{args.seconds} s, {args.threads} threads; costs in millions of fen\n")
    print("| machines | seed | operations | first come | cost | of first come | bound | gap | tries/s | peer | of the peer |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for machines, seed, file, instance, plan in drawn(args):
        price = lambda plan: recount.cost_of(instance, plan)
        first = price(json.loads(plan.read_text()))
        other = peer("cpsat_alliance.py", file, args, "--hint", plan) if peers else {}
        operations = sum(len(job["ops"]) for job in instance["jobs"])
        told = millpool(file, args, plan.with_name("plan.json"), price)
        cost, bound = told["objective"], told["bound"]
        print(f"| {machines} | {seed} | {operations:,} | {first / 1e6:.2f} | {cost / 1e6:.2f} | {100 * cost / first:.1f} % "
              f"| {bound / 1e6:.2f} | {100 * (1 - bound / cost):.1f} % | {told['iterations'] / told['seconds']:,.0f} "
              + (f"| {other['objective'] / 1e6:.2f} | {100 * cost / other['objective']:.1f} % |"
                 if other.get("objective") else "| - | - |"), flush=True)


def numbers(text):
    return [int(x) for x in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    kinds.add_parser("records").set_defaults(run=records)
    for kind, seconds in [(fjsp, 10), (alliance, 60), (ablation, 60)]:
        sub = kinds.add_parser(kind.__name__)
        sub.set_defaults(run=kind)
        sub.add_argument("--seconds", type=float, default=seconds, help="for each instance")
        sub.add_argument("--threads", type=int, default=2)
        sub.add_argument("--seed", type=int, default=1, help="of the search")
        if kind is fjsp:
            sub.add_argument("--families", type=lambda t: t.split(","), default=["mk", "dpp", "la", "behnke"])
            sub.add_argument("--every", type=int, default=1, help="only every so many instances")
            sub.add_argument("--peer-every", type=int, default=0, help="the peer on every so many instances; 0: never")
        else:
            sizes = [12, 60, 300, 3000] if kind is alliance else [12, 60, 300]
            sub.add_argument("--machines", type=numbers, default=sizes)
            sub.add_argument("--seeds", type=numbers, default=[1])
        if kind is alliance:
            sub.add_argument("--peer", action="store_true", help="and CP-SAT on each")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
