//! No process panicked, as its log tells.

use super::Fault;
use std::collections::BTreeMap;
use std::path::Path;

const CALM: &str = "no process panics";

/// Looks through every log of a folder. Panics at one place in one log are one fault.
pub fn judge(folder: &Path) -> std::io::Result<Vec<Fault>> {
    let mut faults = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    for file in files {
        let text = String::from_utf8_lossy(&std::fs::read(file.path())?).into_owned();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, place) in text.lines().filter_map(|line| line.split_once("panicked at ")) {
            *places.entry(place.trim_end_matches(':')).or_default() += 1;
        }
        let name = file.file_name();
        let name = name.to_string_lossy();
        faults.extend(
            places.iter().map(|(place, count)| Fault::new(CALM, format!("{name}: {count} at {place}"))),
        );
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_found_and_a_quiet_log_is_not_blamed() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("a.log"), "INFO all is well\n")?;
        assert_eq!(judge(folder.path())?, []);
        let panicked =
            "thread 'x' (7) panicked at src/a.rs:1:2:\nwhy\nthread 'y' (8) panicked at src/a.rs:1:2:\n";
        std::fs::write(folder.path().join("b.log"), panicked)?;
        assert_eq!(judge(folder.path())?, [Fault::new(CALM, "b.log: 2 at src/a.rs:1:2")]);
        Ok(())
    }
}
