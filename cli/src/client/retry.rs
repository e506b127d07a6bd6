//! When a call is tried again, where, and after what pause.
//!
//! A refusal is an answer and is never retried. A node that cannot serve, a connection that breaks and
//! an answer that does not come are reasons to try the next endpoint with the same request id. An
//! overloaded cluster says when it wants to be asked again, and is asked again there and then.

use super::error::{ClientError, ErrorDetails, ErrorKind, OUTCOME_UNKNOWN};
use super::{Client, ClientOptions};
use rand::{RngExt as _, rngs::StdRng};
use std::error::Error as _;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Request, Response, Status};

/// An attempt with less time than this is not begun: it could but fail, and leave a doubt.
const ATTEMPT_MIN: Duration = Duration::from_millis(20);

/// What repeating a call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Changes nothing: repeat at will.
    Read,
    /// Carries a request id, by which a repetition gets the first answer: repeat at will.
    Write,
    /// Changes something and has no request id: repeat only what certainly did not happen.
    Once,
}

/// What a failed attempt means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A real answer. The end.
    Refused,
    /// It did not happen here; another endpoint may serve it.
    ElsewhereNotDone,
    /// Nobody knows whether it happened.
    ElsewhereUnknown,
    /// It did not happen; the same endpoint asks for a pause of this length.
    Pause(Duration),
}

/// Reads what a failed attempt means.
pub(crate) fn verdict(status: &Status, details: &ErrorDetails) -> Verdict {
    if details.reason == OUTCOME_UNKNOWN {
        return Verdict::ElsewhereUnknown;
    }
    if let Some(source) = status.source() {
        // No coordinator said this: the connection did.
        return if never_connected(source) { Verdict::ElsewhereNotDone } else { Verdict::ElsewhereUnknown };
    }
    match (status.code(), details.retry_after) {
        (Code::Unavailable, _) => Verdict::ElsewhereNotDone,
        (Code::DeadlineExceeded | Code::Cancelled, _) => Verdict::ElsewhereUnknown,
        (Code::ResourceExhausted, Some(pause)) => Verdict::Pause(pause),
        _ => Verdict::Refused,
    }
}

fn never_connected(mut error: &(dyn std::error::Error + 'static)) -> bool {
    loop {
        if error.is::<ConnectError>() {
            return true;
        }
        match error.source() {
            Some(source) => error = source,
            None => return false,
        }
    }
}

/// The pause before attempt number `attempts + 1`: exponential, with full jitter above a quarter, so
/// that clients that failed together do not come back together.
pub(crate) fn backoff(options: &ClientOptions, attempts: u32, random: &mut StdRng) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let ceiling = options.backoff_min.saturating_mul(1 << doublings).min(options.backoff_max);
    ceiling.mul_f64(random.random_range(0.25..=1.0))
}

/// One call with its attempts.
pub(crate) struct Attempts<'a> {
    client: &'a Client,
    rpc: &'static str,
    repeat: Repeat,
    request_id: Option<String>,
    began: Instant,
    count: u32,
    /// An attempt ended without anybody knowing whether it happened.
    unknown: bool,
    /// The answer is a stream, which lives on: the coordinator is told no deadline.
    streaming: bool,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(
        client: &'a Client,
        rpc: &'static str,
        repeat: Repeat,
        request_id: Option<String>,
    ) -> Self {
        Self {
            client,
            rpc,
            repeat,
            request_id,
            began: Instant::now(),
            count: 0,
            unknown: false,
            streaming: false,
        }
    }

    /// For an answer that is a stream.
    pub(crate) fn streaming(self) -> Self {
        Self { streaming: true, ..self }
    }

    /// Tries until there is an answer, a refusal, or no time left.
    pub(crate) async fn run<Q: Clone, A, F>(
        mut self,
        body: Q,
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<(A, usize), ClientError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        loop {
            let at = self.client.preferred();
            let shared = &self.client.shared;
            let patience = shared.options.attempt_timeout.min(self.left());
            let mut request = self.client.request(body.clone());
            if !self.streaming {
                request.set_timeout(patience);
            }
            self.count += 1;
            let sent = send(shared.channels[at].clone(), request);
            let status = match tokio::time::timeout(patience, sent).await {
                Ok(Ok(answer)) => return Ok((answer.into_inner(), at)),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {patience:?}")),
            };
            let pause = self.judge(at, &status)?;
            tokio::time::sleep(pause).await;
        }
    }

    /// The pause before the next attempt, or the end.
    fn judge(&mut self, at: usize, status: &Status) -> Result<Duration, ClientError> {
        let details = ErrorDetails::read(self.rpc, status);
        let verdict = verdict(status, &details);
        let leader = details.metadata.get("leader").cloned();
        let again = match verdict {
            Verdict::Refused => return Err(self.failed(ErrorKind::Refused, at, details)),
            Verdict::Pause(_) => true,
            Verdict::ElsewhereNotDone => {
                self.client.move_on(at, leader.as_deref());
                true
            }
            Verdict::ElsewhereUnknown => {
                self.client.move_on(at, leader.as_deref());
                self.unknown |= self.repeat != Repeat::Read;
                self.repeat != Repeat::Once
            }
        };
        let options = &self.client.shared.options;
        let own = self.client.with_random(|random| backoff(options, self.count, random));
        let pause = match verdict {
            Verdict::Pause(asked) => asked + own,
            // The next endpoint may be well: the first round over all of them does not wait.
            _ if (self.count as usize) < options.endpoints.len() => Duration::ZERO,
            // Late in the day it waits less, so that a last attempt still has time.
            _ => own.min(self.left() / 2),
        };
        let in_time = pause + ATTEMPT_MIN < self.left();
        if again && in_time && self.count < options.attempts_max {
            return Ok(pause);
        }
        let kind = if self.unknown { ErrorKind::OutcomeUnknown } else { ErrorKind::Unavailable };
        Err(self.failed(kind, at, details))
    }

    fn left(&self) -> Duration {
        self.client.shared.options.deadline.saturating_sub(self.began.elapsed())
    }

    fn failed(&self, kind: ErrorKind, at: usize, details: ErrorDetails) -> ClientError {
        let endpoint = self.client.shared.options.endpoints[at].clone();
        let request_id = self.request_id.clone();
        let (attempts, took) = (self.count, self.began.elapsed());
        ClientError {
            kind,
            details: Box::new(ErrorDetails { endpoint, attempts, took, request_id, ..details }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use tonic_types::{ErrorDetails as Told, StatusExt as _};

    fn said(code: Code, reason: &str, retry: Option<u64>) -> Verdict {
        let mut told = Told::new();
        if !reason.is_empty() {
            told.set_error_info(reason, "millpool", []);
        }
        if let Some(ms) = retry {
            told.set_retry_info(Some(Duration::from_millis(ms)));
        }
        let status = Status::with_error_details(code, "said", told);
        verdict(&status, &ErrorDetails::read("Book", &status))
    }

    #[test]
    fn what_each_answer_means() {
        let cases = [
            (Code::Unavailable, "NOT_LEADER", None, Verdict::ElsewhereNotDone),
            (Code::Unavailable, "OUTCOME_UNKNOWN", None, Verdict::ElsewhereUnknown),
            (Code::DeadlineExceeded, "OUTCOME_UNKNOWN", None, Verdict::ElsewhereUnknown),
            (Code::DeadlineExceeded, "", None, Verdict::ElsewhereUnknown),
            (Code::ResourceExhausted, "OVERLOADED", Some(40), Verdict::Pause(Duration::from_millis(40))),
            (Code::ResourceExhausted, "HOLDS_MAX_PER_BUYER", None, Verdict::Refused),
            (Code::FailedPrecondition, "NO_PLACE", None, Verdict::Refused),
            (Code::InvalidArgument, "FIELD_INVALID", None, Verdict::Refused),
            (Code::NotFound, "BOOKING_NOT_FOUND", None, Verdict::Refused),
            (Code::Aborted, "REVISION_CONFLICT", None, Verdict::Refused),
            (Code::Unauthenticated, "", None, Verdict::Refused),
            (Code::OutOfRange, "REVISION_COMPACTED", None, Verdict::Refused),
        ];
        for (code, reason, retry, meant) in cases {
            assert_eq!(said(code, reason, retry), meant, "{code:?} {reason}");
        }
    }

    #[test]
    fn pauses_grow_up_to_their_limit_and_are_jittered() {
        let options = ClientOptions::default();
        let mut random = StdRng::seed_from_u64(7);
        for attempts in 1..40 {
            let ceiling = (options.backoff_min * (1 << (attempts - 1).min(16))).min(options.backoff_max);
            let pause = backoff(&options, attempts, &mut random);
            assert!(pause <= ceiling && pause >= ceiling / 4, "attempt {attempts}: {pause:?}");
        }
    }
}
