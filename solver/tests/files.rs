//! Files in, files out: what the readers take and refuse, and the command from end to end.

use std::process::Command;

use millpool_solver::{Plan, read_fjs, read_instance, read_json, verify, write_json};
use proptest::prelude::*;

const ALLIANCE: &str = include_str!("data/six-machines.json");
const MK01: &str = include_str!("data/mk01.fjs");

fn refusal(text: &str) -> String {
    read_json(text).expect_err("the file is malformed").to_string()
}

#[test]
fn what_is_written_reads_back_the_same() {
    let instance = read_json(ALLIANCE).unwrap();
    assert_eq!(read_json(&write_json(&instance)).unwrap(), instance);
}

#[test]
fn each_planted_fault_is_told_with_its_place() {
    let value: serde_json::Value = serde_json::from_str(ALLIANCE).unwrap();
    let faults: [(&str, serde_json::Value, &str); 14] = [
        ("/format", "alliance-instance/2".into(), "format"),
        ("/jobs/3/ops/0/modes/0/machine", 99.into(), "jobs[3].ops[0].modes[0]: machine 99 does not exist"),
        ("/jobs/3/ops/0/family", 77.into(), "jobs[3].ops[0]"),
        ("/jobs/3/release", (-1).into(), "jobs[3].release"),
        ("/jobs/3/due", i64::MAX.into(), "jobs[3].due"),
        ("/jobs/3/tardiness_weight", u64::MAX.into(), "line 1 column"),
        ("/jobs/3/id", value["jobs"][0]["id"].clone(), "jobs[3].id"),
        ("/jobs/3/ops", serde_json::json!([]), "jobs[3].ops"),
        ("/jobs/3/ops/0/modes/0/duration", 999_999.into(), "jobs[3].ops[0]"),
        ("/jobs/3/ops/0/modes/0/duration", 0.into(), "jobs[3].ops[0].modes[0]: duration is 0"),
        ("/machines/2/plant", 23.into(), "machines[2]: plant 23"),
        ("/machines/2/open", serde_json::json!([[0, 10], [10, 20]]), "machines[2].open: window 1"),
        ("/machines/2/open", serde_json::json!([[20, 10]]), "machines[2].open: window 0"),
        ("/transport/4", serde_json::json!([0, 1]), "transport[4]"),
    ];
    for (path, wrong, want) in faults {
        let mut value = value.clone();
        *value.pointer_mut(path).unwrap() = wrong;
        if path.ends_with("duration") && want == "jobs[3].ops[0]" {
            let modes = value.pointer_mut("/jobs/3/ops/0/modes").unwrap().as_array_mut().unwrap();
            modes.truncate(1);
        }
        let told = refusal(&value.to_string());
        assert!(told.starts_with(want), "{path}: {told}");
    }
    assert!(refusal(&ALLIANCE[..ALLIANCE.len() / 2]).contains("EOF"));
}

#[test]
fn the_text_format_is_refused_where_it_is_wrong() {
    let instance = read_fjs("mk01", MK01).unwrap();
    assert_eq!((instance.jobs.len(), instance.shop.machines.len()), (10, 6));
    for (text, want) in [
        ("", "line 1: the file ends where the number of jobs should be"),
        ("2 2 1\n1 1 1 5\n", "line 2: the file ends where job 2's number of operations should be"),
        ("1 2 1\n1 1 3 5\n", "line 2: operation 1 of job 1: a machine is 3, allowed are 1 to 2"),
        ("1 2 1\n1 1 2 -5\n", "line 2: operation 1 of job 1: a duration is -5"),
        ("1 2 1\n1 1 2 x\n", "line 2: operation 1 of job 1: a duration is \"x\", not a number"),
        ("1 2 1\n1 1 2 5 7\n", "line 2: \"7\" stands after the last job"),
    ] {
        let told = read_fjs("bad", text).expect_err(text).to_string();
        assert!(told.starts_with(want), "{told}");
    }
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_millpool-solve"))
        .args(arguments)
        .output()
        .expect("the command runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_command_writes_a_plan_that_holds() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/");
    for (file, most) in [("six-machines.json", i64::MAX), ("mk01.fjs", 42)] {
        let (instance_path, plan_path, gantt_path) =
            (format!("{data}{file}"), path("plan.json"), path("gantt.svg"));
        let (code, stdout, stderr) = run(&[
            &instance_path,
            "--iterations",
            "20000",
            "--threads",
            "2",
            "--out",
            &plan_path,
            "--gantt",
            &gantt_path,
            "--log",
        ]);
        assert_eq!(code, Some(0), "{stderr}");
        let instance = read_instance("x", &std::fs::read_to_string(&instance_path).unwrap()).unwrap();
        let plan = Plan::read_json(&instance, &std::fs::read_to_string(&plan_path).unwrap()).unwrap();
        let priced = verify(&instance, &plan).unwrap();
        let line: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        let objective = line["objective"].as_i64().unwrap();
        assert_eq!(objective, priced.objective(instance.objective));
        assert!(line["bound"].as_i64().unwrap() <= objective && objective <= most);
        assert!(std::fs::read_to_string(&gantt_path).unwrap().ends_with("</svg>\n"));
        let (again, second, _) = run(&[&instance_path, "--iterations", "2000", "--hint", &plan_path]);
        let line: serde_json::Value = serde_json::from_str(&second).unwrap();
        assert!(again == Some(0) && line["objective"].as_i64().unwrap() <= objective.max(42));
    }
}

#[test]
fn the_command_explains_a_job() {
    let dir = tempfile::tempdir().unwrap();
    let plan = dir.path().join("plan.json").to_str().unwrap().to_owned();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/six-machines.json");
    let job = &read_json(ALLIANCE).unwrap().jobs[0].id;
    let (code, solved, stderr) = run(&[data, "--iterations", "500", "--out", &plan, "--explain", job]);
    assert_eq!(code, Some(0), "{stderr}");
    // The result is the last line, as scripts read it; the explanation stands before.
    let last = solved.trim_end().rfind('\n').unwrap() + 1;
    let (explained, result) = solved.split_at(last);
    // What solving has priced stands between the two.
    let (explained, prices) = explained.split_at(explained.find("What an hour").unwrap());
    assert!(result.starts_with('{') && explained.starts_with(job), "{solved}");
    assert!(prices.contains("day ") && prices.contains("\nlathe "), "{prices}");
    // The hint is explained as it is, and nothing is solved.
    assert_eq!(run(&[data, "--hint", &plan, "--explain", job]), (Some(0), explained.into(), String::new()));
    let (code, _, stderr) = run(&[data, "--hint", &plan, "--explain", "nobody"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("has no job \"nobody\""), "{stderr}");
}

#[test]
fn the_command_names_a_promise_that_cannot_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("promised.json").to_str().unwrap().to_owned();
    let mut value: serde_json::Value = serde_json::from_str(ALLIANCE).unwrap();
    let job = &mut value["jobs"][3];
    let id = job["id"].as_str().unwrap().to_owned();
    (job["rejection_cost"], job["deadline"]) = (serde_json::Value::Null, job["release"].clone());
    std::fs::write(&path, value.to_string()).unwrap();
    let (code, stdout, stderr) = run(&[&path, "--iterations", "200", "--explain", &id]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&format!("{id} cannot be kept, even alone: it ends on day ")), "{stderr}");
    assert!(stdout.starts_with(&format!("{id} is promised, and is not in the plan.")), "{stdout}");
    assert!(stdout.contains("would be done too late, even with nothing else to do"), "{stdout}");
}

#[test]
fn the_command_says_what_is_wrong() {
    let (code, _, stderr) = run(&["/nowhere.json"]);
    assert_eq!(code, Some(3));
    assert!(stderr.contains("cannot read /nowhere.json"), "{stderr}");
    assert_eq!(run(&["--what"]).0, Some(2));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bytes changed, cut out or put in: a reader may take or refuse the file, and never panics.
    #[test]
    fn readers_survive_anything(
        alliance: bool,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, "[-0-9eE.,:\\[\\]{}\" a]{1,12}"), 1..5),
    ) {
        let mut text = if alliance { ALLIANCE.to_owned() } else { MK01.to_owned() };
        for (at, kind, piece) in edits {
            let at = at.index(text.len());
            match kind {
                0 => text.insert_str(at, &piece),
                1 => text.truncate(at.max(1)),
                _ => text.replace_range(at..(at + piece.len()).min(text.len()), &piece),
            }
        }
        if let Ok(instance) = read_instance("x", &text) {
            let _ = Plan::read_json(&instance, &text);
            let _ = verify(&instance, &Plan::default());
        }
    }
}
