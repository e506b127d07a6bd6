//! Programs on their way to a plant. A session's holder hands the content over in parts; it is kept in the leader's
//! memory alone, held against its SHA-256, and fetched by the plant's agent once that has let a PUT pass. Nothing of it
//! goes to the log: what is on record is the name, the hash and the length. A new leader has nothing of it, and whoever
//! uploads begins again.

use super::Core;
use super::answer::{failed, reasons, refused};
use bytes::Bytes;
use millpool_alliance::command::Caller;
use millpool_alliance::program::{PROGRAM_BYTES_MAX, Sha256, file_name};
use millpool_alliance::refusal::within;
use millpool_alliance::registry::Role;
use millpool_alliance::remote::Session;
use millpool_alliance::{PrincipalId, Reason, Refusal, SessionId};
use millpool_proto::v1;
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};

pub(super) const UPLOAD: &str = "/millpool.v1.RemoteService/UploadProgram";
pub(super) const FETCH: &str = "/millpool.v1.AgentService/FetchProgram";

/// Longest part that is handed over, or fetched, bytes.
pub const PART_BYTES_MAX: usize = 256 << 10;
/// All programs that one buyer's sessions may have on their way, bytes.
pub const HOLDER_BYTES_MAX: u64 = 2 * PROGRAM_BYTES_MAX;
/// All programs that may be on their way through this node, bytes.
pub const HELD_BYTES_MAX: u64 = 8 * PROGRAM_BYTES_MAX;
/// What nobody touches for so long is forgotten.
const KEPT: Duration = Duration::from_secs(600);

/// What is on its way through this node: one program a session.
#[derive(Default)]
pub struct Programs(Mutex<BTreeMap<SessionId, Upload>>);

struct Upload {
    holder: PrincipalId,
    sha256: Sha256,
    /// Its length, bytes.
    bytes: u64,
    /// What has come so far, and what it hashes to.
    begun: Vec<u8>,
    hasher: sha2::Sha256,
    /// All of it, once it is there and is what it is said to be.
    whole: Option<Bytes>,
    touched: Instant,
}

/// A part that is handed over.
struct Part<'a> {
    sha256: Sha256,
    bytes: u64,
    offset: u64,
    content: &'a [u8],
}

impl Programs {
    /// Whether a session's program is here, to its end.
    pub fn has(&self, session: &SessionId, sha256: &Sha256, bytes: u64) -> bool {
        let held = self.lock();
        held.get(session).is_some_and(|up| up.whole.is_some() && (&up.sha256, up.bytes) == (sha256, bytes))
    }

    /// Takes a part in; answers with what has been received.
    fn take(&self, session: &Session, part: &Part) -> Result<u64, Refusal> {
        let mut held = self.lock();
        if part.offset == 0 {
            let known = held.get(&session.id);
            if known.is_none_or(|up| (up.sha256, up.bytes) != (part.sha256, part.bytes)) {
                held.remove(&session.id);
                make_room(&held, &session.holder, part.bytes)?;
                held.insert(session.id, Upload::begin(session, part));
            }
        }
        let known = held.get_mut(&session.id).filter(|up| up.sha256 == part.sha256 && up.bytes == part.bytes);
        let Some(upload) = known else { return Err(out_of_order(part.offset, 0)) };
        upload.touched = Instant::now();
        let taken = upload.add(part);
        if taken.is_err() && upload.whole.is_none() && upload.begun.len() as u64 == upload.bytes {
            // It is not what it is said to be.
            held.remove(&session.id);
        }
        taken
    }

    /// A part of a session's program, from `offset`; empty at its end.
    fn part(&self, session: &SessionId, sha256: &Sha256, offset: u64) -> Option<Bytes> {
        let mut held = self.lock();
        let upload = held.get_mut(session).filter(|up| up.sha256 == *sha256)?;
        upload.touched = Instant::now();
        let whole = upload.whole.as_ref()?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
        Some(whole.slice(from..whole.len().min(from + PART_BYTES_MAX)))
    }

    /// Forgets what nobody touches, or can fetch any more.
    fn sweep(&self, is_open: impl Fn(&SessionId) -> bool) {
        self.lock().retain(|session, upload| is_open(session) && upload.touched.elapsed() < KEPT);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Upload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses what would be too much for this node's memory.
fn make_room(held: &BTreeMap<SessionId, Upload>, holder: &PrincipalId, bytes: u64) -> Result<(), Refusal> {
    let own: u64 = held.values().filter(|up| up.holder == *holder).map(|up| up.bytes).sum();
    let all: u64 = held.values().map(|up| up.bytes).sum();
    if own + bytes <= HOLDER_BYTES_MAX && all + bytes <= HELD_BYTES_MAX {
        return Ok(());
    }
    let words = format!(
        "programs of {own} bytes of yours, and of {all} in all, are on their way; with this one of {bytes} there would \
         be more than {HOLDER_BYTES_MAX} of yours, or than {HELD_BYTES_MAX}; close sessions, or wait {} minutes",
        KEPT.as_secs() / 60
    );
    Err(Refusal::because(Reason::TooManyHolds, words))
}

fn out_of_order(offset: u64, received: u64) -> Refusal {
    let accepted = format!("{received}: so much of it has been received here");
    Refusal::invalid(Reason::WrongStatus, "offset", offset, &accepted)
}

impl Upload {
    fn begin(session: &Session, part: &Part) -> Self {
        Upload {
            holder: session.holder.clone(),
            sha256: part.sha256,
            bytes: part.bytes,
            begun: Vec::with_capacity(part.bytes as usize),
            hasher: sha2::Sha256::new(),
            whole: None,
            touched: Instant::now(),
        }
    }

    fn received(&self) -> u64 {
        self.whole.as_ref().map_or(self.begun.len(), Bytes::len) as u64
    }

    fn add(&mut self, part: &Part) -> Result<u64, Refusal> {
        let (received, end) = (self.received(), part.offset.saturating_add(part.content.len() as u64));
        if end <= received {
            // Handed over again.
            return Ok(received);
        }
        if part.offset != received {
            return Err(out_of_order(part.offset, received));
        }
        if end > self.bytes {
            let accepted = format!("parts of {} bytes in all", self.bytes);
            return Err(Refusal::invalid(Reason::InvalidField, "part", end, &accepted));
        }
        self.begun.extend_from_slice(part.content);
        self.hasher.update(part.content);
        if end == self.bytes {
            let found = Sha256(std::mem::take(&mut self.hasher).finalize().into());
            if found != self.sha256 {
                let accepted = format!("{found}, which is the SHA-256 of the content that came");
                return Err(Refusal::invalid(Reason::InvalidField, "program_sha256", self.sha256, &accepted));
            }
            self.whole = Some(std::mem::take(&mut self.begun).into());
        }
        Ok(end)
    }
}

impl Core {
    /// Forgets programs that have no more to do here.
    fn sweep_programs(&self) {
        let state = self.applied();
        self.programs.sweep(|id| state.sessions().get(id).is_some_and(|session| session.is_open()));
    }
}

/// Takes a part of a program in.
pub(super) async fn upload(
    core: Core,
    caller: Caller,
    request: v1::UploadProgramRequest,
) -> Result<v1::UploadProgramResponse, Status> {
    let received_bytes = take(&core, &caller, &request).map_err(|refusal| refused(&refusal))?;
    if request.offset == 0 {
        // What is left behind goes, also where nobody uploads anything any more.
        let core = core.clone();
        tokio::spawn(async move {
            tokio::time::sleep(KEPT + Duration::from_secs(1)).await;
            core.sweep_programs();
        });
    }
    let header = Some(core.header(core.consensus.revision()));
    Ok(v1::UploadProgramResponse { header, received_bytes })
}

fn take(core: &Core, caller: &Caller, request: &v1::UploadProgramRequest) -> Result<u64, Refusal> {
    let id = SessionId::parse(&request.session_id)?;
    file_name("program", &request.program)?;
    let sha256 = Sha256::parse("program_sha256", &request.program_sha256)?;
    let bytes = i64::try_from(request.program_bytes).unwrap_or(i64::MAX);
    within("program_bytes", bytes, 1, PROGRAM_BYTES_MAX as i64)?;
    let length = request.part.len();
    if !(1..=PART_BYTES_MAX).contains(&length) {
        let accepted = format!("1 to {PART_BYTES_MAX} bytes");
        return Err(Refusal::invalid(Reason::InvalidField, "part", format!("{length} bytes"), &accepted));
    }
    core.sweep_programs();
    let state = core.applied();
    let session = state.visible_session(caller, &id)?;
    if session.holder != caller.id || caller.role != Role::Buyer {
        let value = format!("{:?} {}", caller.role, caller.id).to_lowercase();
        return Err(Refusal::invalid(Reason::NotAllowed, "session_id", value, "the session's holder"));
    }
    if let Some(closed) = &session.closed {
        let words = format!("{id} ended at {}, seconds since the Unix epoch: {}", closed.at, closed.because);
        return Err(Refusal::because(Reason::WrongStatus, words));
    }
    let part = Part { sha256, bytes: request.program_bytes, offset: request.offset, content: &request.part };
    core.programs.take(session, &part)
}

/// Gives a part of a program to the plant's agent.
pub(super) async fn fetch(
    core: Core,
    caller: Caller,
    request: v1::FetchProgramRequest,
) -> Result<v1::FetchProgramResponse, Status> {
    core.must_lead()?;
    let id = SessionId::parse(&request.session_id).map_err(|refusal| refused(&refusal))?;
    let sha256 = Sha256::parse("program_sha256", &request.program_sha256);
    let sha256 = sha256.map_err(|refusal| refused(&refusal))?;
    let state = core.applied();
    let own = |session: &&Arc<Session>| {
        session.is_open() && (caller.role != Role::Agent || caller.id.as_str() == session.plant.as_str())
    };
    if state.sessions().get(&id).filter(own).is_none() {
        return Err(refused(&Refusal::unknown("session_id", id)));
    }
    let part = core.programs.part(&id, &sha256, request.offset).ok_or_else(|| {
        let words = "the program's content is not here (any more): it has to be uploaded again";
        failed(Code::FailedPrecondition, reasons::OUT_OF_ORDER, words, &[])
    })?;
    Ok(v1::FetchProgramResponse { part })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use millpool_alliance::{BookingId, MachineId, PlantId};

    fn session(number: u64, holder: &str) -> Session {
        Session {
            id: SessionId::numbered(number),
            booking: BookingId::numbered(1),
            operation: 0,
            machine: MachineId::trusted("m"),
            plant: PlantId::trusted("p"),
            holder: PrincipalId::trusted(holder),
            opened_at: 0,
            closes_at: 1,
            closed: None,
            commands: Vec::new(),
        }
    }

    fn hash(content: &[u8]) -> Sha256 {
        Sha256(sha2::Sha256::digest(content).into())
    }

    #[test]
    fn parts_come_in_order_and_the_whole_is_what_it_is_said_to_be() {
        let (programs, bo) = (Programs::default(), session(1, "bo"));
        let content = b"G0 X0 Y0";
        let (sha256, bytes) = (hash(content), 8);
        let give = |offset: u64, content: &[u8]| programs.take(&bo, &Part { sha256, bytes, offset, content });
        assert_eq!(give(3, b"X0").unwrap_err().field, "offset", "nothing is there");
        assert_eq!(give(0, &content[..3]), Ok(3));
        assert_eq!(give(0, &content[..3]), Ok(3), "again");
        assert!(give(5, b"Y").unwrap_err().accepted.starts_with('3'));
        assert_eq!(give(3, b"X0 Y0 Z0").unwrap_err().field, "part");
        assert!(!programs.has(&bo.id, &sha256, bytes) && programs.part(&bo.id, &sha256, 0).is_none());
        assert_eq!(give(3, &content[3..]), Ok(8));
        assert!(programs.has(&bo.id, &sha256, bytes) && !programs.has(&bo.id, &sha256, 9));
        assert_eq!(programs.part(&bo.id, &sha256, 3).unwrap(), &content[3..]);
        assert!(programs.part(&bo.id, &sha256, 8).unwrap().is_empty());
        assert!(programs.part(&bo.id, &sha256, u64::MAX).unwrap().is_empty());
        assert!(programs.part(&SessionId::numbered(2), &sha256, 0).is_none());
        assert_eq!(give(0, &content[..3]), Ok(8), "it is there already");

        // Another one takes its place; what is not what it is said to be is not kept.
        let wrong = Part { sha256: hash(b"other"), bytes: 5, offset: 0, content: b"O..er" };
        let refusal = programs.take(&bo, &wrong).unwrap_err();
        assert_eq!((refusal.field.as_str(), refusal.value), ("program_sha256", hash(b"other").to_string()));
        assert!(programs.lock().is_empty());
    }

    #[test]
    fn what_is_on_its_way_has_room_and_time() {
        let programs = Programs::default();
        let begin = |number: u64, holder: &str| {
            let part = Part { sha256: hash(b""), bytes: PROGRAM_BYTES_MAX, offset: 0, content: b"G" };
            programs.take(&session(number, holder), &part).map_err(|refusal| refusal.reason)
        };
        assert_eq!(begin(1, "bo"), Ok(1));
        assert_eq!(begin(2, "bo"), Ok(1));
        assert_eq!(begin(3, "bo"), Err(Reason::TooManyHolds));
        assert_eq!(begin(2, "bo"), Ok(1), "in its own place");
        for number in 4..10 {
            assert_eq!(begin(number, &format!("b{number}")), Ok(1));
        }
        assert_eq!(begin(10, "b10"), Err(Reason::TooManyHolds));
        programs.sweep(|session| session.number() != 4);
        assert_eq!(begin(10, "b10"), Ok(1));
        programs.lock().values_mut().for_each(|up| up.touched -= KEPT);
        programs.sweep(|_| true);
        assert!(programs.lock().is_empty());
    }
}
