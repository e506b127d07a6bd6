//! The invariants of ARCHITECTURE.md that a machine can check.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Lines of code (not comments) in `folder` that say `word`, outside the folders in `but`.
fn lines_that_say(folder: &str, word: &str, but: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    rust_files(&workspace().join(folder), &mut files);
    assert!(!files.is_empty(), "{folder} has no source files");
    let mut found = Vec::new();
    for file in files {
        let name = file.display().to_string();
        if but.iter().any(|b| name.contains(b)) {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a source file");
        let code = text.lines().filter(|l| !l.trim_start().starts_with("//") && l.contains(word));
        found.extend(code.map(|l| format!("{name}: {l}")));
    }
    found
}

fn dependencies(room: &str) -> String {
    let manifest = std::fs::read_to_string(workspace().join(room).join("Cargo.toml")).expect("a manifest");
    let section = manifest.split("[dependencies]").nth(1).expect("dependencies");
    section.split("\n[").next().expect("the section").to_owned()
}

#[test]
fn pure_core() {
    for (room, banned) in
        [("alliance", &["tokio", "millpool-", "rand"][..]), ("solver", &["tokio", "millpool-"][..])]
    {
        for name in banned {
            assert!(!dependencies(room).contains(name), "{room} depends on {name}");
        }
    }
    for word in
        ["f64", "f32", "HashMap", "HashSet", "SystemTime", "Instant::", "std::fs", "std::net", "std::thread"]
    {
        assert_eq!(lines_that_say("alliance/src", word, &["planted"]), Vec::<String>::new(), "{word}");
    }
}

#[test]
fn one_vocabulary_each() {
    let none = Vec::<String>::new();
    assert_eq!(lines_that_say("scheduler/src", "openraft::", &["/consensus/"]), none);
    assert_eq!(lines_that_say("scheduler/src", "fjall::", &["/consensus/"]), none);
    assert_eq!(lines_that_say("node-agent/src", "fjall::", &["/samples/shelf.rs"]), none);
    assert_eq!(lines_that_say("scheduler/src", "millpool_solver::", &["/planner/"]), none);
}

#[test]
fn the_check_finds_what_it_looks_for() {
    assert!(!lines_that_say("scheduler/src", "openraft::", &[]).is_empty());
    assert!(!lines_that_say("scheduler/src", "millpool_solver::", &[]).is_empty());
    assert!(!lines_that_say("scheduler/src", "fjall::", &[]).is_empty());
    assert!(!lines_that_say("node-agent/src", "fjall::", &[]).is_empty());
}

/// The meters that the code of a program moves.
fn meters_moved(folder: &str) -> BTreeSet<String> {
    let mut files = Vec::new();
    rust_files(&workspace().join(folder), &mut files);
    let mut moved = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file");
        // The table itself moves nothing; what comes after it may.
        let text =
            if file.ends_with("meters.rs") { text.split("\n];").nth(1).unwrap_or_default() } else { &text };
        let named = text.split("\"millpool_").skip(1).filter_map(|rest| rest.split('"').next());
        moved.extend(named.filter(|n| !n.contains('=')).map(|n| format!("millpool_{n}")));
    }
    moved
}

/// Every meter that the code moves stands in its program's table, and nothing else does. The agent's are read as text:
/// nothing of a coordinator knows the agent.
#[test]
fn meters_are_described() {
    let described = millpool_scheduler::meters::METERS.iter().map(|m| m.0.to_owned()).collect();
    assert_eq!(meters_moved("scheduler/src"), described);
    let file = workspace().join("node-agent/src/meters.rs");
    let text = std::fs::read_to_string(file).expect("the agent's meters");
    let table = text.split("\n];").next().expect("a table");
    let rows = table.split("\"millpool_").skip(1).filter_map(|rest| rest.split('"').next());
    assert_eq!(meters_moved("node-agent/src"), rows.map(|name| format!("millpool_{name}")).collect());
}

/// A machine is called in one place, and nothing there is asks for a job to be stored and started in one.
#[test]
fn one_way_to_a_machine() {
    for (word, but) in [
        ("control.ask(", "opcua/operate.rs"),
        ("control.store(", "opcua/operate.rs"),
        ("CallMethodRequest", "opcua/jobs.rs"),
        (".write(&", "opcua/operate.rs"),
        ("StoreAndStart", "nowhere"),
    ] {
        let said = lines_that_say("node-agent/src/adapter/opcua", word, &[but]);
        assert_eq!(said, Vec::<String>::new(), "{word}");
        let there = lines_that_say("node-agent/src/adapter/opcua", word, &["nowhere"]);
        assert_eq!(there.is_empty(), matches!(word, ".write(&" | "StoreAndStart"), "{word}");
    }
}
