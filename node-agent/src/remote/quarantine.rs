//! Where programs from afar wait until the plant has looked at them, and how they come out.
//!
//! `quarantine/MACHINE/` in the agent's folder holds each as two files, `SHA256-NAME.program` and `.json`, which says
//! whose it is; and `released.json`, which says what of the machine's own folder came from here. Nothing in quarantine
//! is read by a machine. A person, or the plant's member, lets a program out by its name and hash; it then stands in the
//! folder that the machine reads, whole or not at all. It is never put over a program of the plant's own, nor over one
//! that is in use.

use super::program::{PROGRAM_BYTES_MAX, Program, Sha256};
use crate::ground::Ground;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

/// Programs of one machine that wait.
pub const WAITING_MAX: usize = 64;
/// Bytes of all programs that wait.
pub const BYTES_MAX: u64 = 16 * PROGRAM_BYTES_MAX;
/// A part comes within this time.
const PART_WITHIN: Duration = Duration::from_secs(15);

/// A part of a program's content.
pub type Part<'a> = Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send + 'a>>;

/// Whence the content of programs comes.
pub trait Supply: Send + Sync {
    /// The part of a session's program that begins at `offset`; empty at the end.
    fn part(&self, epoch: u64, sha256: Sha256, offset: u64) -> Part<'_>;
}

/// A program in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The machine that it is for.
    pub machine_id: String,
    /// What it is.
    pub program: Program,
    /// Its length, bytes.
    pub bytes: u64,
    /// The job that it came for, `BOOKING/OPERATION`.
    pub job: String,
    /// Whose session it came by.
    pub holder: String,
    /// Since when, plant time, ms since the Unix epoch.
    pub since_ms: i64,
}

/// A program that was let out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// What its content hashes to.
    pub sha256: Sha256,
    /// Whose session it came by: nobody else's job rests on it.
    pub holder: String,
}

/// The quarantine of a plant. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Quarantine {
    dir: PathBuf,
    ground: Ground,
    /// Contents are not held against their hash, to show that it is needed.
    #[cfg(test)]
    pub(super) trusting: bool,
}

impl Quarantine {
    /// The quarantine in an agent's folder. What had not come to its end is thrown away.
    pub fn open(data_dir: &Path, ground: &Ground) -> Self {
        let dir = data_dir.join("quarantine");
        for (path, name) in files(&dir).into_iter().flat_map(|(machine, _)| files(&machine)) {
            if name.ends_with(".part") {
                // What stays is written over when it comes again.
                let _ = std::fs::remove_file(path);
            }
        }
        Self {
            dir,
            ground: ground.clone(),
            #[cfg(test)]
            trusting: false,
        }
    }

    /// What waits, by machine and age.
    pub fn list(&self) -> Vec<Waiting> {
        let read = |(path, name): (PathBuf, String)| -> Option<Waiting> {
            let about = name.strip_suffix(".json").filter(|name| *name != "released").map(|_| path)?;
            serde_json::from_slice(&std::fs::read(about).ok()?).ok()
        };
        let machines = files(&self.dir).into_iter();
        let mut waiting: Vec<_> = machines.flat_map(|(dir, _)| files(&dir)).filter_map(read).collect();
        waiting.sort_by(|a, b| (&a.machine_id, a.since_ms).cmp(&(&b.machine_id, b.since_ms)));
        waiting
    }

    /// Fetches a program and puts it into quarantine, by the session's command of this number. Says what is there, or why
    /// it is not.
    pub async fn put(
        &self,
        supply: &dyn Supply,
        (epoch, nonce): (u64, u32),
        about: Waiting,
    ) -> Result<String, String> {
        let Waiting { program, bytes, .. } = &about;
        let (own, wanted) = (self.clone(), about.clone());
        let begun = self.ground.run(move || own.begin(epoch, nonce, &wanted)).await.flatten();
        let mut taking = begun.map_err(|error| format!("there is no room in quarantine: {error}"))?;
        while taking.length < *bytes {
            let part = supply.part(epoch, program.sha256, taking.length);
            let part = tokio::time::timeout(PART_WITHIN, part).await;
            let part = part.map_err(|_| format!("no part of it came within {PART_WITHIN:?}")).flatten()?;
            if part.is_empty() || taking.length + part.len() as u64 > *bytes {
                let came = taking.length + part.len() as u64;
                return Err(format!("{} has {came} bytes or more, and {bytes} were named", program.name));
            }
            let added = self.ground.run(move || taking.add(&part).map(|()| taking)).await.flatten();
            taking = added.map_err(|error| format!("it cannot be written: {error}"))?;
        }
        let own = self.clone();
        let kept = self.ground.run(move || own.keep(taking, &about)).await;
        kept.map_err(|error| format!("it cannot be written: {error}")).flatten()
    }

    fn begin(&self, epoch: u64, nonce: u32, about: &Waiting) -> std::io::Result<Taking> {
        let waiting = self.list();
        let others = waiting.iter().filter(|one| one.machine_id == about.machine_id).count();
        let held: u64 = waiting.iter().map(|one| one.bytes).sum();
        if others >= WAITING_MAX || held + about.bytes > BYTES_MAX {
            let words = format!(
                "{others} programs wait for the machine, {held} bytes for all; accepted are {WAITING_MAX}, and \
                 {BYTES_MAX}; the plant releases or discards some"
            );
            return Err(std::io::Error::other(words));
        }
        let dir = self.dir.join(&about.machine_id);
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{epoch}-{nonce}.part"));
        Ok(Taking { file: File::create(&path)?, path, hasher: sha2::Sha256::new(), length: 0 })
    }

    fn keep(&self, taking: Taking, about: &Waiting) -> Result<String, String> {
        let failed = |error: std::io::Error| format!("it cannot be written: {error}");
        let Taking { file, path, hasher, .. } = taking;
        let (found, wanted) = (Sha256::finished(hasher), about.program.sha256);
        if found != wanted && !self.trusts() {
            let _ = std::fs::remove_file(path);
            metrics::counter!("millpool_agent_programs_total", "what" => "wrong hash").increment(1);
            return Err(format!("{} has SHA-256 {found}, and {wanted} was named", about.program.name));
        }
        file.sync_all().map_err(failed)?;
        let json = serde_json::to_vec(about).map_err(|error| failed(error.into()))?;
        let (content, words) = (self.content(&about.machine_id, &about.program), about.program.to_string());
        std::fs::rename(path, &content).map_err(failed)?;
        replace(&content.with_extension("json"), &json).map_err(failed)?;
        metrics::counter!("millpool_agent_programs_total", "what" => "quarantined").increment(1);
        Ok(format!("in quarantine: {words}, {} bytes; the plant releases it", about.bytes))
    }

    /// Lets a program out into the folder that its machine reads. `in_use` is why a file there must not be replaced now.
    pub async fn release(
        &self,
        machine_id: &str,
        program: &Program,
        folder: &Path,
        in_use: Option<String>,
    ) -> Result<String, String> {
        let (own, machine_id) = (self.clone(), machine_id.to_owned());
        let (program, folder) = (program.clone(), folder.to_owned());
        let released = self.ground.run(move || own.let_out(&machine_id, &program, &folder, in_use)).await;
        released.map_err(|error| error.to_string()).flatten()
    }

    fn let_out(
        &self,
        machine_id: &str,
        program: &Program,
        folder: &Path,
        in_use: Option<String>,
    ) -> Result<String, String> {
        let Program { name, sha256 } = program;
        let source = self.content(machine_id, program);
        let content = std::fs::read(&source);
        let content = content.map_err(|_| format!("{program} is not in quarantine for {machine_id}"))?;
        if Sha256::of(&content) != *sha256 && !self.trusts() {
            return Err(format!("what is in quarantine as {name} is not what came: discard it"));
        }
        let target = folder.join(name);
        let mut released = self.released(machine_id)?;
        let there = self.may_replace(&target, program, released.get(name), in_use)?;
        let failed = |error: std::io::Error| format!("{}: {error}", target.display());
        if !there {
            replace(&target, &content).map_err(failed)?;
        }
        let holder = self.about(machine_id, program).map(|about| about.holder).unwrap_or_default();
        released.insert(name.clone(), Released { sha256: *sha256, holder });
        let json = serde_json::to_vec(&released).map_err(|error| failed(error.into()))?;
        replace(&self.dir.join(machine_id).join("released.json"), &json).map_err(failed)?;
        self.remove(machine_id, program).map_err(failed)?;
        metrics::counter!("millpool_agent_programs_total", "what" => "released").increment(1);
        Ok(format!("released: {program} stands in {}", folder.display()))
    }

    /// Whether a program may stand at `target`, and does already. What is not there is in nobody's way.
    fn may_replace(
        &self,
        target: &Path,
        program: &Program,
        released: Option<&Released>,
        in_use: Option<String>,
    ) -> Result<bool, String> {
        let found = match Sha256::of_file(target) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(format!("{}: {error}", target.display())),
        };
        let name = &program.name;
        if found == Some(program.sha256) {
            return Ok(true);
        }
        if found.is_none() || found != released.map(|released| released.sha256) {
            return Err(format!(
                "{} is the plant's own and is not replaced: another name is needed for {name}",
                target.display()
            ));
        }
        in_use.map_or(Ok(false), |why| Err(format!("{name} is in use and is not replaced: {why}")))
    }

    /// Throws a program out; whichever it is, or only what came by the sessions of `holder`.
    pub async fn discard(
        &self,
        machine_id: &str,
        program: &Program,
        holder: Option<String>,
    ) -> Result<String, String> {
        let (own, id, thrown) = (self.clone(), machine_id.to_owned(), program.clone());
        let removed = self.ground.run(move || {
            let about = own.about(&id, &thrown).filter(|about| holder.is_none_or(|own| own == about.holder));
            about.map(|_| own.remove(&id, &thrown))
        });
        match removed.await.ok().flatten() {
            Some(Ok(())) => {
                metrics::counter!("millpool_agent_programs_total", "what" => "discarded").increment(1);
                Ok(format!("discarded: {program}"))
            }
            Some(Err(error)) => Err(format!("{program} cannot be discarded: {error}")),
            None => Err(format!("{program} is not in quarantine for {machine_id}")),
        }
    }

    /// What of a machine's own folder came from here, by the file's name.
    pub fn released(&self, machine_id: &str) -> Result<BTreeMap<String, Released>, String> {
        let path = self.dir.join(machine_id).join("released.json");
        let unreadable = |error: std::io::Error| {
            format!("{}: {error}; what came from afar is not known any more", path.display())
        };
        match std::fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|error| unreadable(error.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// What is said of a program in quarantine.
    fn about(&self, machine_id: &str, program: &Program) -> Option<Waiting> {
        let json = std::fs::read(self.content(machine_id, program).with_extension("json")).ok()?;
        serde_json::from_slice(&json).ok()
    }

    fn remove(&self, machine_id: &str, program: &Program) -> std::io::Result<()> {
        let content = self.content(machine_id, program);
        std::fs::remove_file(content.with_extension("json"))?;
        std::fs::remove_file(content)
    }

    fn content(&self, machine_id: &str, program: &Program) -> PathBuf {
        let Program { name, sha256 } = program;
        self.dir.join(machine_id).join(format!("{sha256}-{name}.program"))
    }

    #[cfg(test)]
    fn trusts(&self) -> bool {
        self.trusting
    }

    #[cfg(not(test))]
    fn trusts(&self) -> bool {
        false
    }
}

/// A program that comes.
struct Taking {
    file: File,
    path: PathBuf,
    hasher: sha2::Sha256,
    length: u64,
}

impl Taking {
    fn add(&mut self, part: &[u8]) -> std::io::Result<()> {
        self.file.write_all(part)?;
        self.hasher.update(part);
        self.length += part.len() as u64;
        Ok(())
    }
}

/// A file, whole or not at all: written aside, synced, and put in its place.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.part"));
    let written = File::create(&aside).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| std::fs::rename(&aside, path)) {
        let _ = std::fs::remove_file(&aside);
        return Err(error);
    }
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// What a folder holds, with names; nothing where there is none.
fn files(dir: &Path) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_half_there_is_thrown_away_and_what_was_released_is_not_forgotten() {
        let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ground = Ground::Machine;
        let quarantine = Quarantine::open(data.path(), &ground);
        let program = Program { name: "p.nc".to_owned(), sha256: Sha256::of(b"G0") };
        let about = Waiting {
            machine_id: "m".to_owned(),
            program: program.clone(),
            bytes: 2,
            job: "b/0".to_owned(),
            holder: "bo".to_owned(),
            since_ms: 1,
        };
        // The agent dies while it comes.
        let mut taking = quarantine.begin(1, 1, &about).unwrap();
        taking.add(b"G").unwrap();
        drop(taking);
        assert_eq!(files(&data.path().join("quarantine/m")).len(), 1);
        let quarantine = Quarantine::open(data.path(), &ground);
        assert!(files(&data.path().join("quarantine/m")).is_empty() && quarantine.list().is_empty());

        let mut taking = quarantine.begin(1, 2, &about).unwrap();
        taking.add(b"G0").unwrap();
        quarantine.keep(taking, &about).unwrap();
        assert_eq!(Quarantine::open(data.path(), &ground).list(), [about]);
        let strange = quarantine.discard("m", &program, Some("bi".to_owned())).await.unwrap_err();
        assert!(strange.contains("is not in quarantine"), "another buyer's: {strange}");
        quarantine.release("m", &program, folder.path(), None).await.unwrap();
        let released = Quarantine::open(data.path(), &ground).released("m").unwrap();
        assert_eq!(released["p.nc"], Released { sha256: program.sha256, holder: "bo".to_owned() });

        // What came from afar is never taken for the plant's own because nobody can read what came.
        std::fs::write(data.path().join("quarantine/m/released.json"), "{").unwrap();
        assert!(quarantine.released("m").unwrap_err().contains("is not known any more"));
    }

    #[test]
    fn there_is_room_for_so_much_and_no_more() {
        let data = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(data.path(), &Ground::Machine);
        let about = |at: usize, bytes: u64| Waiting {
            machine_id: "m".to_owned(),
            program: Program { name: format!("p{at}.nc"), sha256: Sha256::of(b"") },
            bytes,
            job: "b/0".to_owned(),
            holder: "bo".to_owned(),
            since_ms: at as i64,
        };
        assert!(quarantine.begin(1, 1, &about(0, BYTES_MAX + 1)).is_err());
        for at in 0..WAITING_MAX {
            let about = about(at, 0);
            quarantine.keep(quarantine.begin(1, 1, &about).unwrap(), &about).unwrap();
        }
        let full = quarantine.begin(1, 1, &about(WAITING_MAX, 0)).map(drop).unwrap_err().to_string();
        assert!(full.contains("64 programs wait for the machine"), "{full}");
        assert_eq!(quarantine.list().len(), WAITING_MAX);
    }
}
