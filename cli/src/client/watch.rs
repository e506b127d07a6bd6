//! Watches that outlive the node that serves them.
//!
//! A watch remembers the last revision that it has seen. When its stream is cut, it goes on at the next
//! revision on another endpoint, so that nothing is missed and nothing comes twice. When that revision
//! is no longer kept, it begins anew with the present and says so, because changes in between are lost
//! to it.

use super::Client;
use super::error::{ClientError, ErrorDetails, ErrorKind};
use super::retry::{Attempts, Repeat, backoff};
use std::future::Future;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

/// A request that is answered by a stream of changes. Implemented for the contract's two.
pub trait Follow: Clone + Send {
    /// One message of the stream.
    type Answer: Send;
    /// The RPC's name.
    const RPC: &'static str;
    /// The first revision of interest.
    fn start_revision_mut(&mut self) -> &mut u64;
    /// The revision of a message.
    fn revision(answer: &Self::Answer) -> u64;
    /// Whether more of the same revision follows.
    fn continued(answer: &Self::Answer) -> bool;
    /// Opens the stream.
    fn open(
        channel: Channel,
        request: Request<Self>,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Answer>>, Status>> + Send;
}

/// What a watch tells.
#[derive(Debug)]
pub enum WatchEvent<T> {
    /// A message of the stream.
    Changed(T),
    /// The stream was cut, or cannot be opened again yet; the watch goes on trying.
    Cut(ClientError),
    /// The stream goes on.
    Resumed {
        /// The endpoint that serves it now.
        endpoint: String,
        /// The first revision that it will tell; 0 for the present and what follows.
        start_revision: u64,
    },
    /// The revision to go on from is no longer kept: changes before the present are lost, and the watch
    /// begins anew with the present.
    Compacted {
        /// The revision that was asked for.
        start_revision: u64,
        /// The oldest revision that is still kept, as the coordinator said.
        compacted_revision: u64,
    },
}

/// A stream of changes. Ask for the [`next`](Watch::next).
pub struct Watch<Q: Follow> {
    client: Client,
    /// As the caller gave it, but for the start revision, which moves on.
    request: Q,
    /// The open stream and the endpoint that serves it.
    stream: Option<(Streaming<Q::Answer>, usize)>,
    /// Endings since the last message, which lengthen the pause before the next opening.
    endings: u32,
    /// A stream was open once: from then on the watch does not give up.
    established: bool,
}

impl<Q: Follow> Watch<Q> {
    pub(crate) fn new(client: Client, request: Q) -> Self {
        Self { client, request, stream: None, endings: 0, established: false }
    }

    /// The next event.
    ///
    /// Fails where a coordinator refuses the watch, and where the first opening finds no coordinator
    /// within the deadline. A watch that was open once never gives up. Dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Result<WatchEvent<Q::Answer>, ClientError> {
        match self.stream.take() {
            Some(open) => self.read(open).await,
            None => self.reopen().await,
        }
    }

    async fn read(
        &mut self,
        open: (Streaming<Q::Answer>, usize),
    ) -> Result<WatchEvent<Q::Answer>, ClientError> {
        let silence_max = self.client.shared.options.watch_silence_max;
        // Kept in `self` while it is read, so that a dropped future leaves the stream where it was.
        let (stream, at) = self.stream.insert(open);
        let at = *at;
        let status = match tokio::time::timeout(silence_max, stream.message()).await {
            Ok(Ok(Some(answer))) => {
                self.seen(&answer);
                return Ok(WatchEvent::Changed(answer));
            }
            Ok(Ok(None)) => Status::unavailable("the coordinator ended the stream"),
            Ok(Err(status)) => status,
            Err(_) => Status::unavailable(format!("nothing was heard for {silence_max:?}")),
        };
        self.stream = None;
        self.endings += 1;
        let error = self.error(at, &status);
        if let Some(compacted) = error.compacted_revision() {
            return Ok(self.anew(compacted));
        }
        if refused_for_good(status.code()) {
            return Err(error);
        }
        self.client.move_on(at, error.metadata("leader"));
        Ok(WatchEvent::Cut(error))
    }

    async fn reopen(&mut self) -> Result<WatchEvent<Q::Answer>, ClientError> {
        if self.endings > 1 {
            let options = &self.client.shared.options;
            let pause = self.client.with_random(|random| backoff(options, self.endings, random));
            tokio::time::sleep(pause).await;
        }
        let attempts = Attempts::new(&self.client, Q::RPC, Repeat::Read, None).streaming();
        match attempts.run(self.request.clone(), Q::open).await {
            Ok(open) if self.established => {
                let endpoint = self.client.endpoints()[open.1].clone();
                self.stream = Some(open);
                Ok(WatchEvent::Resumed { endpoint, start_revision: *self.request.start_revision_mut() })
            }
            Ok(open) => {
                self.established = true;
                self.read(open).await
            }
            Err(error) => {
                self.endings += 1;
                if let Some(compacted) = error.compacted_revision() {
                    return Ok(self.anew(compacted));
                }
                if error.kind == ErrorKind::Refused || !self.established {
                    return Err(error);
                }
                Ok(WatchEvent::Cut(error))
            }
        }
    }

    /// The next revision to ask for lies behind one that was seen whole.
    fn seen(&mut self, answer: &Q::Answer) {
        self.endings = 0;
        let revision = Q::revision(answer);
        let start = self.request.start_revision_mut();
        if revision > 0 && !Q::continued(answer) {
            *start = (*start).max(revision + 1);
        }
    }

    fn anew(&mut self, compacted_revision: u64) -> WatchEvent<Q::Answer> {
        let start_revision = std::mem::take(self.request.start_revision_mut());
        WatchEvent::Compacted { start_revision, compacted_revision }
    }

    fn error(&self, at: usize, status: &Status) -> ClientError {
        let endpoint = self.client.endpoints()[at].clone();
        let told = ErrorDetails::read(Q::RPC, status);
        let kind = if refused_for_good(status.code()) { ErrorKind::Refused } else { ErrorKind::Unavailable };
        ClientError { kind, details: Box::new(ErrorDetails { endpoint, attempts: 1, ..told }) }
    }
}

/// Whether a stream that ended so would end so on every endpoint.
fn refused_for_good(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::OutOfRange
    )
}
