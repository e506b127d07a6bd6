//! Programs in remote operation: fetched, let out, thrown out; and on which one each job rests.

use super::{Omitted, Remote, WORKS_MAX, job_of};
use crate::outbox::OutboxError;
use crate::remote::guard::Refused;
use crate::remote::program::{PROGRAM_BYTES_MAX, Pinned, Program, Wanted};
use crate::remote::quarantine::Waiting;
use crate::remote::run::Hand;
use crate::remote::{Answer, Asked, Came, Verb};
use std::path::PathBuf;

impl Remote {
    /// Lets a program out of quarantine, or throws it out: whichever it is, or only what is the `holder`'s. What is in the
    /// way is looked at now; the rest may take its time.
    pub(super) fn move_program(
        &self,
        machine_id: String,
        program: Program,
        release: bool,
        holder: Option<String>,
    ) -> impl Future<Output = Result<String, String>> + Send + 'static {
        let quarantine = self.options.quarantine.clone();
        let folder = self.folder(&machine_id);
        let in_use = self.in_use(&machine_id, &program);
        async move {
            match (release, folder) {
                (false, _) => quarantine.discard(&machine_id, &program, holder).await,
                (true, Ok(folder)) => quarantine.release(&machine_id, &program, &folder, in_use).await,
                (true, Err(why)) => Err(why),
            }
        }
    }

    /// Where a machine reads its programs, if the plant lets some be put there.
    pub(super) fn folder(&self, machine_id: &str) -> Result<PathBuf, String> {
        let hand = self.options.hands.get(machine_id).ok_or_else(|| Refused::Machine.to_string())?;
        let none = || format!("the plant takes no programs for {machine_id}: no folder is named for them");
        hand.rule.programs.clone().ok_or_else(none)
    }

    /// Why a program's file must not be replaced by another content now.
    fn in_use(&self, machine_id: &str, program: &Program) -> Option<String> {
        if self.omits(Omitted::InUse) {
            return None;
        }
        let report = self.options.health.report().machines.remove(machine_id).unwrap_or_default();
        let shown = report.program.as_deref().is_some_and(|shown| is_file(shown, &program.name));
        if shown && !matches!(report.machine_state.as_str(), "idle" | "off") {
            return Some(format!("the machine shows it as its program, and is {}", report.machine_state));
        }
        let items = self.options.kept.borrow().items_of(machine_id);
        let listed = |job: &str| items.iter().any(|item| job == job_of(&item.booking_id, item.operation));
        let granted = |job: &str| self.memory.granted.iter().any(|grant| grant.job == job);
        let job = self.memory.rests.in_the_way(machine_id, program, |job| listed(job) || granted(job));
        job.map(|job| format!("job {job} rests on what is there"))
    }

    /// Fetches a program into quarantine.
    pub(super) async fn put(
        &mut self,
        asked: Asked,
        program: Program,
        bytes: u64,
    ) -> Result<(), OutboxError> {
        let supply = self.options.supply.borrow().clone();
        let trouble = match (&supply, self.folder(&asked.machine_id)) {
            (_, Err(why)) => Some(why),
            _ if !(1..=PROGRAM_BYTES_MAX).contains(&bytes) => {
                Some(format!("program_bytes = {bytes}: accepted is 1 to {PROGRAM_BYTES_MAX}"))
            }
            (None, _) => Some(Refused::CutOff.to_string()),
            _ if self.answers.len() >= WORKS_MAX => {
                Some("the plant is busy; try again in a moment".to_owned())
            }
            _ => None,
        };
        let Some(supply) = supply.filter(|_| trouble.is_none()) else {
            return self.tell(&asked, String::new(), Answer::not_asked(trouble.unwrap_or_default())).await;
        };
        let about = Waiting {
            machine_id: asked.machine_id.clone(),
            program,
            bytes,
            job: asked.job(),
            holder: asked.holder.clone(),
            since_ms: self.options.clock.now_ms(),
        };
        let (quarantine, id) = (self.options.quarantine.clone(), asked.id());
        self.work(asked, async move { quarantine.put(&*supply, id, about).await }).await
    }

    /// The program on which a job is to rest, or does, where it was released here.
    pub(super) fn pinned(
        &self,
        asked: &Asked,
        verb: Verb,
        wanted: Option<&Wanted>,
        hand: &Hand,
    ) -> Result<Option<Pinned>, String> {
        let program = match (verb, wanted) {
            (Verb::Store | Verb::Update, Some(wanted)) => self.released(asked, wanted)?,
            (Verb::Start | Verb::Resume, _) => {
                match self.memory.rests.of(&asked.machine_id, &asked.job())?.cloned() {
                    Some(Wanted { name, sha256: Some(sha256) }) => Some(Program { name, sha256 }),
                    Some(named) => self.released(asked, &named)?,
                    None => None,
                }
            }
            _ => None,
        };
        let Some(program) = program else { return Ok(None) };
        let none = || format!("{program} was released, and no folder is named for programs any more");
        let path = hand.rule.programs.as_ref().ok_or_else(none)?.join(&program.name);
        Ok(Some(Pinned { path, program, ground: self.options.ground.clone() }))
    }

    /// The program of this name, if it was released here; an error where another is wanted, or it is another buyer's.
    fn released(&self, asked: &Asked, wanted: &Wanted) -> Result<Option<Program>, String> {
        let name = &wanted.name;
        match (self.options.quarantine.released(&asked.machine_id)?.remove(name), wanted.sha256) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(format!(
                "{name} was not released here, so nobody knows its content; leave its SHA-256 out if it is a program \
                 of the plant's own"
            )),
            (Some(released), _) if released.holder != asked.holder => {
                Err(format!("{name} was released for another buyer"))
            }
            (Some(released), Some(sha256)) if released.sha256 != sha256 => Err(format!(
                "{name} was released with SHA-256 {}, and {sha256} is asked for",
                released.sha256
            )),
            (Some(released), _) => Ok(Some(Program { name: name.clone(), sha256: released.sha256 })),
        }
    }

    /// What a command's outcome means for the program that its job rests on.
    pub(super) fn note_rest(&mut self, asked: &Asked, came: &Came) {
        if !asked.act.verb().is_some_and(Verb::changes_program) {
            return;
        }
        let (machine_id, job) = (&asked.machine_id, asked.job());
        match came {
            Came::Answered { done: true, .. } => self.memory.rests.settle(machine_id, &job, asked.id()),
            // Nobody knows.
            Came::NoAnswer(_) => {}
            _ => self.memory.rests.leave(machine_id, &job, asked.id()),
        }
        let kept = self.options.kept.borrow();
        self.memory.rests.prune(|machine_id, job| {
            kept.items_of(machine_id).iter().any(|item| job == job_of(&item.booking_id, item.operation))
        });
    }
}

/// Whether a machine that shows `shown` as its program may mean the file `name`: folders and endings are shown by some
/// controls and left out by others.
fn is_file(shown: &str, name: &str) -> bool {
    let file = shown.rsplit(['/', '\\']).next().unwrap_or(shown);
    let stem = |name: &str| name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_ascii_lowercase();
    file.eq_ignore_ascii_case(name) || stem(file) == stem(name)
}
