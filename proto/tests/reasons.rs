//! The reasons of the contract are the reasons of the code, by name: neither has one that the other lacks.
//!
//! The sources are read as text, because this crate stands below those that give the reasons.

use prost::Message as _;
use std::collections::BTreeSet;
use std::path::Path;

/// A file, how its lines that name a reason begin, and what stands before the name.
const SOURCES: [(&str, &str, &str); 2] = [
    ("alliance/src/refusal.rs", "Reason::", "=> \""),
    ("scheduler/src/api/answer.rs", "pub const ", ": &str = \""),
];

/// The names in the contract.
fn documented() -> BTreeSet<String> {
    let files = prost_types::FileDescriptorSet::decode(millpool_proto::DESCRIPTORS).expect("descriptors");
    let common = files.file.iter().find(|f| f.name() == "millpool/v1/common.proto").expect("common.proto");
    let reason = common.enum_type.iter().find(|e| e.name() == "Reason").expect("the enumeration Reason");
    let name = |value: &str| value.strip_prefix("REASON_").expect("values begin with REASON_").to_owned();
    reason.value.iter().filter(|v| v.number() != 0).map(|v| name(v.name())).collect()
}

/// The names that a file of `SOURCES` gives.
fn given(file: &str, begins: &str, before: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let name = |line: &str| {
        let rest = line.trim_start().strip_prefix(begins)?;
        let (_, rest) = rest.split_once(before)?;
        let (name, _) = rest.split_once('"')?;
        name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_').then(|| name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

#[test]
fn every_reason_is_in_the_contract_and_no_other() {
    let mut all = BTreeSet::new();
    for (file, begins, before) in SOURCES {
        let names = given(file, begins, before);
        assert!(names.len() >= 10, "{file} has {names:?}: has its form changed?");
        all.extend(names);
    }
    let documented = documented();
    let missing: Vec<_> = all.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&all).collect();
    assert!(missing.is_empty(), "reasons that common.proto does not document: {missing:?}");
    assert!(unknown.is_empty(), "reasons in common.proto that nothing gives: {unknown:?}");
}
