//! A program that came from afar: a name, and what its content hashes to. A job that rests on one is stored, and
//! started, only while the file that the machine reads is still the one that was released.

use crate::ground::Ground;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::Digest as _;

use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest content of a program, bytes.
pub const PROGRAM_BYTES_MAX: u64 = 32 << 20;
/// Longest name of a program's file, characters.
const FILE_NAME_LENGTH_MAX: usize = 64;
/// Jobs whose programs are remembered.
const RESTS_MAX: usize = 256;

/// SHA-256 of a program's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// Of a content.
    pub fn of(content: &[u8]) -> Self {
        Self(sha2::Sha256::digest(content).into())
    }

    /// Reads 64 hexadecimal digits.
    pub fn read(text: &str) -> Option<Self> {
        let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
        let digits = digits.filter(|digits| digits.len() == 64)?;
        let (pairs, _) = digits.as_chunks::<2>();
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        bytes.try_into().ok().map(Self)
    }

    /// Of a file; none where it is longer than any program.
    pub fn of_file(path: &Path) -> std::io::Result<Option<Self>> {
        let mut file = std::fs::File::open(path)?.take(PROGRAM_BYTES_MAX + 1);
        let (mut hasher, mut length, mut buffer) = (sha2::Sha256::new(), 0, vec![0; 64 << 10]);
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            length += read as u64;
            hasher.update(&buffer[..read]);
        }
        Ok((length <= PROGRAM_BYTES_MAX).then(|| Self(hasher.finalize().into())))
    }

    pub(super) fn finished(hasher: sha2::Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

impl std::fmt::Display for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::read(&text).ok_or_else(|| D::Error::custom("accepted are 64 hexadecimal digits"))
    }
}

/// A program's file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// What its content hashes to.
    pub sha256: Sha256,
}

impl Program {
    /// A program whose name is plainly that of a file: nothing in it leads out of a folder, hides, or looks like a flag.
    pub fn read(name: &str, sha256: &str) -> Option<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let plain = (1..=FILE_NAME_LENGTH_MAX).contains(&name.len())
            && name.chars().all(fits)
            && !name.starts_with(['.', '-'])
            && !name.ends_with('.');
        let sha256 = Sha256::read(sha256).filter(|_| plain)?;
        Some(Self { name: name.to_owned(), sha256 })
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (SHA-256 {})", self.name, self.sha256)
    }
}

/// The program that a job is to have: a name that the machine knows, and what its content has to hash to, if that was
/// said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// What its content hashes to.
    pub sha256: Option<Sha256>,
}

/// What a program has to be when the machine is asked.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// Where the machine reads it.
    pub path: PathBuf,
    /// What it has to be.
    pub program: Program,
    /// Where its file is read.
    pub ground: Ground,
}

impl Pinned {
    /// Whether the file is what it has to be, or why not.
    pub async fn check(&self) -> Result<(), String> {
        let (path, Program { name, sha256 }) = (self.path.clone(), &self.program);
        match self.ground.run(move || Sha256::of_file(&path)).await.flatten() {
            Ok(Some(found)) if found == *sha256 => Ok(()),
            Ok(Some(found)) => Err(format!("{name} has SHA-256 {found}, and {sha256} was released")),
            Ok(None) => Err(format!("{name} is longer than any program that was released")),
            Err(error) => Err(format!("{name} cannot be read: {error}")),
        }
    }
}

/// What each job rests on, as far as it was stored from afar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rests(Vec<Rest>);

/// What one job rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rest {
    machine_id: String,
    job: String,
    /// The program, where one was named; with what its content hashes to where it was released here.
    on: Option<Wanted>,
    /// What was asked to change that, and is not known to have been done or not.
    open: Vec<Change>,
}

/// A change of what a job rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    /// By the session's command of this number.
    by: (u64, u32),
    on: Option<Wanted>,
}

impl Rests {
    /// Something is about to be asked that changes what a job rests on.
    pub fn begin(&mut self, machine_id: &str, job: &str, by: (u64, u32), on: Option<Wanted>) {
        self.entry(machine_id, job).open.push(Change { by, on });
    }

    /// It was not done.
    pub fn leave(&mut self, machine_id: &str, job: &str, by: (u64, u32)) {
        self.entry(machine_id, job).open.retain(|change| change.by != by);
    }

    /// It was done, and whatever was asked before it is of no account any more.
    pub fn settle(&mut self, machine_id: &str, job: &str, by: (u64, u32)) {
        let rest = self.entry(machine_id, job);
        // What was asked after it and is done already has taken its change away, and stands.
        if let Some(change) = rest.open.iter().find(|change| change.by == by) {
            rest.on = change.on.clone();
        }
        rest.open.retain(|change| change.by > by);
        self.0.retain(|rest| rest.on.is_some() || !rest.open.is_empty());
    }

    /// What a job rests on; an error where nobody knows.
    pub fn of(&self, machine_id: &str, job: &str) -> Result<Option<&Wanted>, String> {
        let rest = self.0.iter().find(|rest| rest.machine_id == machine_id && rest.job == job);
        match rest {
            Some(rest) if !rest.open.is_empty() => {
                Err("it is not known on which program the job rests; store it again, and wait for the answer"
                    .to_owned())
            }
            rest => Ok(rest.and_then(|rest| rest.on.as_ref())),
        }
    }

    /// The job, of those that `stand`, that rests on another content of a program's file, or may.
    pub fn in_the_way(
        &self,
        machine_id: &str,
        program: &Program,
        stands: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let rests = self.0.iter().filter(|rest| rest.machine_id == machine_id && stands(&rest.job));
        let other =
            |on: &Wanted| on.name == program.name && on.sha256.is_some_and(|sha256| sha256 != program.sha256);
        let on_other = |rest: &&Rest| {
            let changes = rest.open.iter().map(|change| &change.on);
            changes.chain([&rest.on]).flatten().any(other)
        };
        rests.into_iter().find(on_other).map(|rest| rest.job.clone())
    }

    /// Forgets jobs that no longer `stand`, where there are many.
    pub fn prune(&mut self, stands: impl Fn(&str, &str) -> bool) {
        if self.0.len() > RESTS_MAX {
            self.0.retain(|rest| stands(&rest.machine_id, &rest.job));
        }
    }

    fn entry(&mut self, machine_id: &str, job: &str) -> &mut Rest {
        let known = self.0.iter().position(|rest| rest.machine_id == machine_id && rest.job == job);
        let at = known.unwrap_or_else(|| {
            let (machine_id, job) = (machine_id.to_owned(), job.to_owned());
            self.0.push(Rest { machine_id, job, on: None, open: Vec::new() });
            self.0.len() - 1
        });
        &mut self.0[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(content: &str) -> Program {
        Program { name: "p.nc".to_owned(), sha256: Sha256::of(content.as_bytes()) }
    }

    fn wanted(content: &str) -> Wanted {
        Wanted { name: "p.nc".to_owned(), sha256: Some(Sha256::of(content.as_bytes())) }
    }

    #[test]
    fn a_name_leads_nowhere_else_and_a_hash_is_read_as_it_is_written() {
        let hash = Sha256::of(b"G0").to_string();
        assert_eq!(Sha256::read(&hash), Some(Sha256::of(b"G0")));
        for name in ["P4711.nc", "9", "part-7_v2.MPF"] {
            assert!(Program::read(name, &hash).is_some(), "{name}");
        }
        for name in ["", "..", "../x", "a/b", "a\\b", ".x", "-x", "a b", "ü", "a.", &"x".repeat(65)] {
            assert!(Program::read(name, &hash).is_none(), "{name}");
        }
        assert!(Program::read("p.nc", &hash[1..]).is_none() && Program::read("p.nc", "").is_none());
    }

    #[test]
    fn what_a_job_rests_on_is_known_once_everything_that_was_asked_is_answered() {
        let mut rests = Rests::default();
        assert_eq!(rests.of("m", "b/0"), Ok(None), "the plant's own");
        rests.begin("m", "b/0", (1, 1), Some(wanted("a")));
        assert!(rests.of("m", "b/0").is_err(), "on its way");
        assert_eq!(rests.in_the_way("m", &program("b"), |_| true), Some("b/0".to_owned()), "it may");
        rests.settle("m", "b/0", (1, 1));
        assert_eq!(rests.of("m", "b/0"), Ok(Some(&wanted("a"))));
        rests.begin("m", "b/0", (1, 2), None);
        rests.leave("m", "b/0", (1, 2));
        assert_eq!(rests.of("m", "b/0"), Ok(Some(&wanted("a"))), "it was refused");
        // Never answered; a later one settles it, and an earlier one's answer does not.
        rests.begin("m", "b/0", (1, 3), None);
        rests.begin("m", "b/0", (2, 1), Some(wanted("b")));
        rests.settle("m", "b/0", (1, 3));
        assert!(rests.of("m", "b/0").is_err());
        rests.begin("m", "b/0", (1, 4), None);
        rests.settle("m", "b/0", (2, 1));
        assert_eq!(rests.of("m", "b/0"), Ok(Some(&wanted("b"))));
        assert_eq!(rests.in_the_way("m", &program("a"), |_| true), Some("b/0".to_owned()));
        assert_eq!(rests.in_the_way("m", &program("a"), |_| false), None);
        assert_eq!(rests.in_the_way("m", &program("b"), |_| true), None);
        assert_eq!(rests.in_the_way("n", &program("a"), |_| true), None);
        let kept: Rests = serde_json::from_slice(&serde_json::to_vec(&rests).unwrap()).unwrap();
        assert_eq!(kept, rests);
        // It is taken off the list, and stored again before that was answered.
        rests.begin("m", "b/0", (3, 1), None);
        rests.begin("m", "b/0", (3, 2), Some(wanted("a")));
        rests.settle("m", "b/0", (3, 1));
        assert_eq!(rests.in_the_way("m", &program("b"), |_| true), Some("b/0".to_owned()));
        rests.settle("m", "b/0", (3, 2));
        assert_eq!(rests.of("m", "b/0"), Ok(Some(&wanted("a"))));
        // The answers are heard in another order.
        rests.begin("m", "b/0", (3, 3), None);
        rests.begin("m", "b/0", (3, 4), Some(wanted("b")));
        rests.settle("m", "b/0", (3, 4));
        rests.settle("m", "b/0", (3, 3));
        assert_eq!(rests.of("m", "b/0"), Ok(Some(&wanted("b"))));
        rests.begin("m", "b/0", (3, 5), None);
        rests.settle("m", "b/0", (3, 5));
        assert_eq!(rests, Rests::default(), "nothing is left of it");
    }
}
