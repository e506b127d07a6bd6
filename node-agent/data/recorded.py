#!/usr/bin/env python3
"""Makes recorded.toml: how three recorded machines worked, as the simulated machine draws it.

    python3 recorded.py FOLDER > recorded.toml

FOLDER holds state_intervals_NAME.csv.gz of each machine (README.md says whence): start_utc, end_utc, avail, mode,
execution, estop, program, one line an interval, without gaps. Only the standard library is needed.

- A state is what the MTConnect adapter makes of these signals (src/adapter/mtconnect/signals.rs).
- A run is producing with pauses of at most 15 minutes in between, drop-outs included, as the agent binds it to one
  operation (MERGED_GAP_MS in src/adapter/job.rs). What lies outside of runs is not looked at.
- A drop-out, unknown within a run, is taken out, and what it interrupted goes on after it: its length and the time
  seen between two of them are tables of their own. An emergency stop (8 in the 1,240 hours) is taken out, too: breakdowns
  have settings of their own.
- A run's last cut is left out, because the work ended there and no pause did; so every stretch has one that follows.
- Lengths are in ascending order in a hundred classes of equally many, the mean of each: to draw a class is to draw
  from the recording, with its mean.
"""

import csv
import datetime
import gzip
import pathlib
import sys

MACHINES = ["GFAgie01", "Mazak01", "Mazak03"]
MERGED_GAP_MS = 15 * 60_000
CLASSES = 100
STATES = ["producing", "held", "idle", "setup"]

HEAD = """\
# How recorded machines work: made by recorded.py, not by hand. Lengths are in ms.
#
# Source: NIST Smart Manufacturing Systems (SMS) Test Bed, repository usnistgov/smstestbed: recordings of a GF
# AgieCharmilles HPM600U (GFAgie01), a Mazak Integrex 100-IV (Mazak01) and a Mazak QTN 300 (Mazak03), 2016 to 2020. We
# acknowledge the National Institute of Standards and Technology as the source. Derived by us: these tables are not
# NIST's. Licence: not subject to copyright protection within the United States; the notice is nist/NOTICE.md.
"""


def at_ms(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000


def state(row):
    """The table at the top of src/adapter/mtconnect/signals.rs, for the signals that the intervals have."""
    execution, mode = row["execution"], row["mode"]
    if row["avail"] == "UNAVAILABLE" or execution in ("", "UNAVAILABLE"):
        return "unknown"
    if row["estop"] == "TRIGGERED":
        return "blocked"
    if execution in ("ACTIVE", "WAIT"):
        if mode in ("", "UNAVAILABLE"):
            return "unknown"
        return "producing" if mode == "AUTOMATIC" else "setup"
    if execution in ("INTERRUPTED", "FEED_HOLD", "PROGRAM_STOPPED", "OPTIONAL_STOP", "PROGRAM_OPTIONAL_STOP"):
        return "held"
    return "idle" if execution in ("READY", "STOPPED", "PROGRAM_COMPLETED") else "unknown"


def joined(stretches):
    """Neighbours in one state are one stretch."""
    out = []
    for name, length in stretches:
        if out and out[-1][0] == name:
            out[-1] = (name, out[-1][1] + length)
        else:
            out.append((name, length))
    return out


def runs(stretches):
    """From the first cut to the last, with pauses of at most MERGED_GAP_MS."""
    run, pause = [], []
    for stretch in stretches:
        if stretch[0] != "producing":
            pause.append(stretch)
            continue
        if run and sum(length for _, length in pause) > MERGED_GAP_MS:
            yield run
            run, pause = [], []
        run += (pause if run else []) + [stretch]
        pause = []
    if run:
        yield run


def classes(lengths):
    """The means of at most CLASSES classes of equally many, ascending."""
    lengths, count = sorted(lengths), min(CLASSES, len(lengths))
    cuts = [len(lengths) * at // count for at in range(count + 1)]
    return [max(1, round(sum(lengths[a:b]) / (b - a))) for a, b in zip(cuts, cuts[1:])]


def median(lengths):
    return sorted(lengths)[len(lengths) // 2]


class Recorded:
    def __init__(self, path):
        with gzip.open(path, "rt") as file:
            rows = list(csv.DictReader(file))
        whole = joined((state(row), at_ms(row["end_utc"]) - at_ms(row["start_utc"])) for row in rows)
        self.lengths = {name: [] for name in STATES}
        self.follows = {name: dict.fromkeys(STATES, 0) for name in STATES}
        self.dropouts, self.seen, self.runs, self.hours = [], [], 0, 0.0
        seen_ms = 0.0
        for run in runs(whole):
            self.runs += 1
            self.hours += sum(length for _, length in run) / 3_600_000
            for name, length in run:
                if name == "unknown":
                    self.dropouts.append(length)
                    self.seen.append(seen_ms)
                    seen_ms = 0.0
                else:
                    seen_ms += length
            course = joined(stretch for stretch in run if stretch[0] in STATES)
            for (name, length), (after, _) in zip(course, course[1:]):
                self.lengths[name].append(length)
                self.follows[name][after] += 1

    def write(self, name):
        print(f'\n[[machine]]\nname = "{name}"\nruns = {self.runs}\nhours = {self.hours:.1f}')
        whole = sum(sum(lengths) for lengths in self.lengths.values())
        for state, lengths in self.lengths.items():
            follows = ", ".join(f"{after} = {count}" for after, count in self.follows[state].items() if count)
            print(f'\n[[machine.stretch]]\nstate = "{state}"\nshare_permille = {round(sum(lengths) * 1000 / whole)}')
            print(f"follows = {{ {follows} }}")
            self.table(lengths)
        for table, lengths in (("seen", self.seen), ("dropout", self.dropouts)):
            print(f"\n[machine.{table}]")
            self.table(lengths)

    @staticmethod
    def table(lengths):
        print(f"recorded = {len(lengths)}\nmedian_ms = {round(median(lengths))}\nlengths_ms = [")
        means = classes(lengths)
        for at in range(0, len(means), 20):
            print("    " + ", ".join(map(str, means[at : at + 20])) + ",")
        print("]")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(HEAD, end="")
    for name in MACHINES:
        Recorded(pathlib.Path(sys.argv[1]) / f"state_intervals_{name}.csv.gz").write(name)


main()
