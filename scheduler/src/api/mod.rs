//! The public services, one file each: who calls is made out, the message is read, the planner or the
//! state answers.
//!
//! Writes and quotes are the leader's: another node passes them on to it ([`forward`]) with the caller that
//! it has made out. Reads are answered by every node, by default linearizable.

mod access;
mod admin;
mod agent;
mod answer;
mod booking;
mod capacity;
mod forward;
mod indicators;
mod plan;
mod programs;
mod remote;
mod seats;
mod silence;
mod stream;

pub use access::{Access, TABLE, hash as token_hash, operator};
pub use answer::{DOMAIN, reasons};
pub use forward::Forwarded;

use crate::clock::Clock;
use crate::consensus::{self, ForwardFailed, Snapshot};
use crate::planner::{self, Failure, Quotes};
use crate::planted::{Bug, planted};
use crate::replica::Replica;
use crate::watch::History;
use answer::{failed, reason, refused};
use millpool_alliance::command::{Caller, Request as RequestKey};
use millpool_alliance::digest::hash_of;
use millpool_alliance::refusal::{text, within};
use millpool_alliance::{Outcome, Refusal, State};
use millpool_proto::v1;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

/// How long a request waits for a leader before it is refused.
pub const LEADER_WAIT: Duration = Duration::from_secs(5);
/// How long a former leader's answer is waited for once another leads.
const LAST_ANSWERS: Duration = Duration::from_millis(100);
/// Largest message that a client may send, bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Messages up to here are read, to be refused with all that a refusal says; larger ones are cut off, bytes.
pub const MESSAGE_BYTES_READ_MAX: usize = 4 * MESSAGE_BYTES_MAX;
/// Largest page of a list.
pub const PAGE_MAX: u32 = 1000;
/// Page of a list if none is asked for.
pub const PAGE_DEFAULT: u32 = 100;
/// Longest page token, characters.
const PAGE_TOKEN_LENGTH_MAX: usize = 80;
/// Backups on their way at once.
pub const BACKUPS_MAX: usize = 1;
/// Empty messages on a watch at least this often.
pub const WATCH_PROGRESS: Duration = Duration::from_secs(10);

/// What every service needs. Cheap to clone.
#[derive(Clone)]
pub struct Core {
    /// The log.
    pub consensus: consensus::Handle<Replica>,
    /// The planner.
    pub planner: planner::Handle,
    /// Recent changes.
    pub history: History,
    /// The alliance's clock.
    pub clock: Clock,
    /// Who may call.
    pub access: Access,
    /// Agents connected here.
    pub seats: Arc<seats::Seats>,
    /// Programs on their way to plants.
    programs: Arc<programs::Programs>,
    /// Quotes on what this node has applied.
    pub quotes: Quotes,
    /// Backups that may be on their way at once: each holds the state's bytes.
    backups: Arc<Semaphore>,
}

impl Core {
    /// The parts, put together.
    pub fn new(
        consensus: consensus::Handle<Replica>,
        planner: planner::Handle,
        clock: Clock,
        access: Access,
        silent_after: Duration,
    ) -> Self {
        let history = History::start(&consensus);
        let backups = Arc::new(Semaphore::new(BACKUPS_MAX));
        let (seats, programs, quotes) = (Arc::default(), Arc::default(), Quotes::default());
        let core = Core { consensus, planner, history, clock, access, seats, programs, quotes, backups };
        core.attend_agents(silent_after);
        core
    }

    fn admit<T>(&self, path: &str, request: &Request<T>) -> Result<Caller, Status> {
        let now = self.clock.now_s();
        self.consensus.look(|view| self.access.admit(path, request.metadata(), &view.state, now))
    }

    /// Answers here if this node leads, else passes the request on to the leader.
    async fn led<Q, A, F, Fut>(
        &self,
        path: &'static str,
        request: Request<Q>,
        local: F,
    ) -> Result<Response<A>, Status>
    where
        Q: prost::Message + Clone + Default,
        A: prost::Message + Default,
        F: Fn(Core, Caller, Q) -> Fut,
        Fut: Future<Output = Result<A, Status>>,
    {
        let begun = Instant::now();
        let caller = self.admit(path, &request)?;
        let message = request.into_inner();
        check_length(&message)?;
        let mut in_doubt = false;
        let answer = loop {
            let answer = self.led_once(path, &caller, &message, &local).await;
            match &answer {
                // Look again who leads.
                Err(status) if begun.elapsed() < LEADER_WAIT && may_repeat(path, status) => {
                    in_doubt |= unknown(status);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                _ => break as_known(in_doubt, answer),
            }
        };
        observe(path, begun, answer.as_ref().map_or_else(Status::code, |_| Code::Ok));
        answer.map(Response::new)
    }

    async fn led_once<Q, A, F, Fut>(
        &self,
        path: &'static str,
        caller: &Caller,
        message: &Q,
        local: &F,
    ) -> Result<A, Status>
    where
        Q: prost::Message + Clone + Default,
        A: prost::Message + Default,
        F: Fn(Core, Caller, Q) -> Fut,
        Fut: Future<Output = Result<A, Status>>,
    {
        let leadership = self.consensus.leadership();
        match leadership.leader {
            _ if leadership.is_ready => local(self.clone(), caller.clone(), message.clone()).await,
            Some(leader) if leader.node_id != self.consensus.node_id() => {
                let request = forward::request(caller, path, message);
                // Only what may be asked again is given up where the leader has been succeeded.
                let succeeded = async {
                    match admin::WITHOUT_ID.contains(&path) {
                        true => std::future::pending().await,
                        false => self.consensus.succeeded(leader.node_id).await,
                    }
                    // One that has handed over in good order still answers what it has done.
                    tokio::time::sleep(LAST_ANSWERS).await;
                };
                tokio::select! {
                    answer = self.consensus.forward(leader.node_id, request) => match answer {
                        Ok(response) => forward::read_response(response),
                        Err(ForwardFailed::Unknown { .. }) => Err(answer::failure(Failure::Unknown)),
                        Err(e) => Err(failed(Code::Unavailable, reasons::NO_LEADER, e.to_string(), &[])),
                    },
                    () = succeeded => Err(answer::failure(Failure::Unknown)),
                }
            }
            _ => Err(failed(Code::Unavailable, reasons::NO_LEADER, "nobody leads at the moment", &[])),
        }
    }

    /// Answers a read on this node.
    async fn local<Q, A, F, Fut>(
        &self,
        path: &'static str,
        request: Request<Q>,
        local: F,
    ) -> Result<Response<A>, Status>
    where
        Q: prost::Message,
        F: FnOnce(Core, Caller, Q) -> Fut,
        Fut: Future<Output = Result<A, Status>>,
    {
        let begun = Instant::now();
        let caller = self.admit(path, &request)?;
        let message = request.into_inner();
        check_length(&message)?;
        let answer = local(self.clone(), caller, message).await;
        observe(path, begun, answer.as_ref().map_or_else(Status::code, |_| Code::Ok));
        answer.map(Response::new)
    }

    /// A state as fresh as asked.
    async fn read(&self, consistency: Option<v1::Consistency>) -> Result<Snapshot<Replica>, Status> {
        let asked = consistency.unwrap_or_default();
        if asked.serializable {
            self.consensus
                .wait_applied(asked.min_revision, LEADER_WAIT)
                .await
                .map_err(|e| failed(Code::Unavailable, reasons::NO_LEADER, e.to_string(), &[]))?;
        } else if !planted(Bug::ReadsStale) {
            self.linearize().await?;
        }
        Ok(self.consensus.state())
    }

    /// Waits until this node has applied every write acknowledged before now; patient through an election.
    async fn linearize(&self) -> Result<(), Status> {
        let begun = Instant::now();
        loop {
            match self.consensus.linearize().await {
                Ok(_) => return Ok(()),
                Err(_) if begun.elapsed() < LEADER_WAIT => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(e) => return Err(failed(Code::Unavailable, reasons::NO_LEADER, e.to_string(), &[])),
            }
        }
    }

    fn header(&self, revision: u64) -> v1::Header {
        v1::Header {
            cluster_id: self.consensus.cluster_id().to_owned(),
            node_id: self.consensus.node_id(),
            term: self.consensus.leadership().term,
            revision,
        }
    }

    /// Does a command of a client's, once.
    async fn execute(
        &self,
        caller: Caller,
        request: RequestKey,
        command: millpool_alliance::Command,
    ) -> Result<Arc<Outcome>, Status> {
        self.planner.execute(caller, Some(request), command).await.map_err(answer::failure)
    }

    fn applied(&self) -> State {
        seen(&self.consensus.state())
    }
}

/// The state at the revision that its node has applied: entries of the consensus' own leave no trace in it.
fn seen(view: &Snapshot<Replica>) -> State {
    view.state.0.seen_at(view.revision)
}

fn check_length(message: &impl prost::Message) -> Result<(), Status> {
    let (bytes, most) = (message.encoded_len() as i64, MESSAGE_BYTES_MAX as i64);
    within("request (bytes)", bytes, 0, most).map_err(|refusal| refused(&refusal))
}

/// Nothing was done because nobody led, or somebody else: safe to try again at once.
fn leaderless(status: &Status) -> bool {
    matches!(reason(status).as_deref(), Some(reasons::NOT_LEADER | reasons::NO_LEADER))
}

/// An answer in the light of an earlier attempt: where nothing was done now, and nobody has looked whether it was done
/// before, a request that was in doubt still is.
fn as_known<A>(in_doubt: bool, answer: Result<A, Status>) -> Result<A, Status> {
    answer.map_err(|status| {
        let reason = reason(&status);
        let not_looked =
            leaderless(&status) || matches!(reason.as_deref(), Some(reasons::OVERLOADED | reasons::STOPPING));
        if in_doubt && not_looked { answer::failure(Failure::Unknown) } else { status }
    })
}

/// The leader fell silent: what was asked may have been done.
fn unknown(status: &Status) -> bool {
    reason(status).as_deref() == Some(reasons::OUTCOME_UNKNOWN)
}

/// Whether asking again cannot do a thing twice: nothing was done, or whatever was done is found again by its request
/// id, which all requests but a few have.
fn may_repeat(path: &str, status: &Status) -> bool {
    leaderless(status) || unknown(status) && !admin::WITHOUT_ID.contains(&path)
}

fn observe(path: &'static str, begun: Instant, code: Code) {
    let seconds = begun.elapsed().as_secs_f64();
    metrics::histogram!("millpool_rpc_seconds", "path" => path).record(seconds);
    metrics::counter!("millpool_rpc_total", "path" => path, "code" => format!("{code:?}")).increment(1);
}

/// The key under which a request's answer is remembered. `body` is the message without its request id.
fn key(path: &'static str, id: &str, body: &impl prost::Message) -> Result<RequestKey, Status> {
    text("request_id", id, 1, 64).map_err(|refusal| refused(&refusal))?;
    Ok(RequestKey { id: id.to_owned(), method: path.to_owned(), fingerprint: hash_of(&body.encode_to_vec()) })
}

/// Checks a page and gives its size.
fn page_size(page: &Option<v1::Page>) -> Result<usize, Refusal> {
    match page.as_ref().map_or(0, |p| p.size) {
        0 => Ok(PAGE_DEFAULT as usize),
        size if size <= PAGE_MAX => Ok(size as usize),
        size => Err(Refusal::invalid(
            millpool_alliance::Reason::InvalidField,
            "page.size",
            size,
            &format!("1 to {PAGE_MAX}, or 0 for {PAGE_DEFAULT}"),
        )),
    }
}

/// A page of `items`, which are sorted by `id`, after the token; and the next token.
fn paged<T>(
    items: impl Iterator<Item = T>,
    page: &Option<v1::Page>,
    id: impl Fn(&T) -> String,
) -> Result<(Vec<T>, String), Status> {
    let after = page.as_ref().map_or("", |p| &p.token);
    text("page.token", after, 0, PAGE_TOKEN_LENGTH_MAX).map_err(|refusal| refused(&refusal))?;
    page_of(items.filter(|item| after.is_empty() || id(item).as_str() > after), page, &id)
}

/// A page of `rest`, which is what comes after the token; and the next token.
fn page_of<T>(
    mut rest: impl Iterator<Item = T>,
    page: &Option<v1::Page>,
    id: impl Fn(&T) -> String,
) -> Result<(Vec<T>, String), Status> {
    let size = page_size(page).map_err(|refusal| refused(&refusal))?;
    let shown: Vec<T> = rest.by_ref().take(size).collect();
    let token = match (rest.next(), shown.last()) {
        (Some(_), Some(last)) => id(last),
        _ => String::new(),
    };
    Ok((shown, token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpool_alliance::Reason;

    #[test]
    fn what_was_in_doubt_stays_in_doubt_until_somebody_has_looked() {
        let told = |in_doubt, failure| {
            let status = as_known::<()>(in_doubt, Err(answer::failure(failure))).unwrap_err();
            reason(&status).unwrap()
        };
        for failure in [Failure::NotLeader { leader: None }, Failure::Overloaded, Failure::Stopped] {
            assert_eq!(told(true, failure.clone()), reasons::OUTCOME_UNKNOWN, "{failure}");
            assert_ne!(told(false, failure.clone()), reasons::OUTCOME_UNKNOWN, "{failure}");
        }
        // A refusal has been looked into: the planner knows what was done under the request's id.
        let refused = Failure::Refused(Refusal::because(Reason::NoCapacity, "nothing fits"));
        assert_eq!(told(true, refused), Reason::NoCapacity.code());
    }
}
