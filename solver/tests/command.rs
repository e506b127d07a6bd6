//! `millpool-solve` as scripts and people meet it: exit codes, signals, the log, hints, tables.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use millpool_solver::{Instance, Plan, read_json, verify, write_json};
use rustix::process::{Pid, Signal, kill_process};

const ALLIANCE: &str = include_str!("data/six-machines.json");
const MK01: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/mk01.fjs");

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_millpool-solve"))
}

struct Told {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Told {
    fn line(&self) -> serde_json::Value {
        serde_json::from_str(self.stdout.lines().last().expect("a line")).expect("JSON")
    }
}

fn run(arguments: &[&str]) -> Told {
    let output = command().args(arguments).output().expect("the command runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Told { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("the test folder can be used"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("the test folder can be used").to_owned()
    }

    fn put(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("the test folder can be used");
        self.path(name)
    }
}

fn plan_in(instance: &Instance, file: impl AsRef<Path>) -> Plan {
    Plan::read_json(instance, &std::fs::read_to_string(file).expect("the test folder can be used"))
        .expect("the test folder can be used")
}

/// A reader of RFC 4180, for the test alone.
fn table(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, quoted) {
            ('"', true) if rest.peek() == Some(&'"') => cell.extend(rest.next()),
            ('"', _) => quoted = !quoted,
            (',', false) => row.push(std::mem::take(&mut cell)),
            ('\r', false) => {
                assert_eq!(rest.next(), Some('\n'), "rows end with CR LF");
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            _ => cell.push(c),
        }
    }
    assert!(row.is_empty() && cell.is_empty() && !quoted, "the last row ends too");
    rows
}

#[test]
fn the_table_has_a_row_an_operation_and_one_a_rejected_job() {
    let folder = Folder::new();
    let mut instance = read_json(ALLIANCE).unwrap();
    instance.jobs[0].id = "flange, 40 \"mm\"".into();
    instance.tick_seconds = 90;
    let file = folder.put("instance.json", &write_json(&instance));
    let (out, csv) = (folder.path("plan.json"), folder.path("plan.csv"));
    assert_eq!(run(&[&file, "--iterations", "500", "--out", &out, "--csv", &csv]).code, Some(0));
    let plan = plan_in(&instance, out);
    let rows = table(&std::fs::read_to_string(csv).unwrap());
    assert_eq!(rows.len(), 1 + plan.assignments.len() + plan.rejected.len());
    assert!(rows.iter().all(|row| row.len() == rows[0].len()));
    let column = |name: &str| rows[0].iter().position(|head| head == name).unwrap();
    let (mut setups, mut late) = (0, std::collections::BTreeSet::new());
    for (a, row) in plan.assignments.iter().zip(&rows[1..]) {
        let (job, machine) = (&instance.jobs[a.job], &instance.shop.machines[a.machine]);
        assert_eq!([&row[0], &row[1]], [&job.id, &a.op.to_string()]);
        assert_eq!([&row[column("machine")], &row[column("class")]], [&machine.id, &machine.class]);
        assert_eq!(
            [&row[column("start_tick")], &row[column("end_tick")]],
            [&a.start.to_string(), &a.end.to_string()]
        );
        assert_eq!(row[column("end_minute")].parse::<f64>().unwrap(), a.end as f64 * 1.5);
        setups += row[column("setup_ticks")].parse::<i64>().unwrap() * machine.setup_cost_per_tick;
        if row[column("status")] == "late" {
            late.insert(a.job);
        }
    }
    let priced = verify(&instance, &plan).unwrap();
    assert_eq!((setups, late.len()), (priced.setup, priced.late));
    for (&j, row) in plan.rejected.iter().zip(&rows[1 + plan.assignments.len()..]) {
        assert_eq!([row[0].as_str(), &row[column("status")]], [&instance.jobs[j].id, "rejected"]);
    }
}

#[test]
fn a_hint_that_breaks_rules_is_repaired_by_name() {
    let folder = Folder::new();
    let instance = read_json(ALLIANCE).unwrap();
    let (file, out) = (folder.put("instance.json", ALLIANCE), folder.path("plan.json"));
    assert_eq!(run(&[&file, "--iterations", "2000", "--out", &out]).code, Some(0));
    let whole = run(&[&file, "--iterations", "10", "--hint", &out]);
    assert_eq!(
        (whole.code, whole.stderr.as_str()),
        (Some(0), ""),
        "a hint that holds is nothing to speak of"
    );
    let mut plan = plan_in(&instance, &out);
    let job = plan.assignments[0].job;
    plan.assignments[0].end += 1;
    let hint = folder.put("hint.json", &plan.write_json(&instance));
    let told = run(&[&file, "--iterations", "10", "--hint", &hint]);
    let name = format!("{}/{}: ends at", instance.jobs[job].id, plan.assignments[0].op);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    for part in ["the hint breaks the rules in ", &name, "repaired, it costs", "it claims"] {
        assert!(told.stderr.contains(part), "{part}: {}", told.stderr);
    }
    plan.assignments.clear();
    let told =
        run(&[&file, "--iterations", "10", "--hint", &folder.put("hint.json", &plan.write_json(&instance))]);
    assert!(told.stderr.contains(" more\n") && told.stderr.lines().count() < 12, "{}", told.stderr);
    let stranger = folder.put(
        "hint.json",
        r#"{"instance": "", "objective": null, "bound": null, "assignments": [{"job": "?", "op": 0, "machine": "?", "start": 0, "end": 1}], "rejected": []}"#,
    );
    let told = run(&[&file, "--hint", &stranger]);
    assert_eq!(told.code, Some(3));
    assert!(told.stderr.contains("assignments[0].job: \"?\" is unknown"), "{}", told.stderr);
}

/// Sends a signal once the log has its first line of progress.
fn cancelled(signal: Signal, instance: &str, out: &PathBuf) -> Told {
    let mut child = command()
        .args([instance, "--seconds", "600", "--threads", "2", "--log", "--out"])
        .arg(out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped"));
    let (mut stderr, mut line) = (String::new(), String::new());
    while !line.starts_with('*') {
        line.clear();
        assert!(lines.read_line(&mut line).expect("it can be read") > 0, "no line of progress: {stderr}");
        stderr += &line;
    }
    kill_process(Pid::from_child(&child), signal).expect("the signal arrives");
    lines.read_to_string(&mut stderr).expect("it can be read");
    let mut stdout = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("it can be read");
    Told { code: child.wait().expect("it can be read").code(), stdout, stderr }
}

#[test]
fn a_signal_ends_the_search_and_the_best_plan_is_written() {
    let folder = Folder::new();
    let file = folder.put("instance.json", ALLIANCE);
    let instance = read_json(ALLIANCE).unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let out = PathBuf::from(folder.path("plan.json"));
        let told = cancelled(signal, &file, &out);
        assert_eq!(told.code, Some(5), "{}", told.stderr);
        assert_eq!(told.line()["status"], "cancelled");
        assert!(told.stderr.contains("status      cancelled"), "{}", told.stderr);
        let priced = verify(&instance, &plan_in(&instance, &out)).unwrap();
        assert_eq!(told.line()["objective"], priced.total());
        std::fs::remove_file(out).unwrap();
    }
}

#[test]
fn the_log_reads_from_head_to_summary_and_is_all_that_is_said() {
    let told = run(&[MK01, "--seconds", "20", "--threads", "2", "--log"]);
    assert_eq!((told.code, told.line()["status"].as_str()), (Some(0), Some("optimal")), "{}", told.stderr);
    for part in [
        "instance    mk01",
        "6 machines, 10 jobs, 55 operations",
        "makespan",
        "found by",
        "status      optimal",
    ] {
        assert!(told.stderr.contains(part), "{part}: {}", told.stderr);
    }
    let quiet = run(&[MK01, "--iterations", "100"]);
    assert_eq!((quiet.stderr.as_str(), quiet.stdout.lines().count()), ("", 1));
}

#[test]
fn a_promise_that_cannot_be_kept_is_an_exit_code_of_its_own() {
    let folder = Folder::new();
    let mut instance = read_json(ALLIANCE).unwrap();
    instance.jobs[1].rejection_cost = None;
    instance.jobs[1].deadline = Some(instance.jobs[1].release);
    let (file, out) = (folder.put("instance.json", &write_json(&instance)), folder.path("plan.json"));
    let told = run(&[&file, "--iterations", "100", "--log", "--out", &out]);
    assert_eq!((told.code, told.stdout.as_str()), (Some(1), ""));
    assert!(told.stderr.contains(&instance.jobs[1].id) && !Path::new(&out).exists(), "{}", told.stderr);
    assert!(told.stderr.contains("promised jobs have no place yet"), "{}", told.stderr);
    let help = run(&["--help"]).stdout;
    assert!([".fjs", "Exit codes:", "Ctrl-C"].iter().all(|part| help.contains(part)), "{help}");
}
