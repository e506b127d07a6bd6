//! What was answered, remembered for a while: a request that is repeated is answered as it was at first, and done once.

use crate::command::{Caller, Reply, Request};
use crate::digest::hash_of;
use crate::planted::{Bug, planted};
use crate::refusal::{Reason, Refusal};
use crate::state::State;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Most request ids that are remembered; above it the oldest go first.
pub const ANSWERS_MAX: usize = 500_000;

/// Longest request id, characters.
pub const REQUEST_ID_LENGTH_MAX: usize = 100;

/// A client's request, remembered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnswerKey {
    /// Who asked.
    pub caller: Caller,
    /// The RPC.
    pub method: String,
    /// The request id.
    pub id: String,
}

/// The first answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// Hash of what was asked.
    pub fingerprint: u64,
    /// The revision at which it was done.
    pub revision: u64,
    /// Until when it is remembered, seconds since the Unix epoch.
    pub expires_at: i64,
    /// What was done.
    pub reply: Reply,
}

/// A request as it is looked for: by a hash first, so that few texts are compared where many are remembered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asked {
    hash: u64,
    pub(crate) key: Arc<AnswerKey>,
}

impl Asked {
    pub(crate) fn of(caller: &Caller, request: &Request) -> Self {
        let (method, id) = (request.method.clone(), request.id.clone());
        Arc::new(AnswerKey { caller: caller.clone(), method, id }).into()
    }
}

impl From<Arc<AnswerKey>> for Asked {
    fn from(key: Arc<AnswerKey>) -> Self {
        Asked { hash: hash_of(&key), key }
    }
}

/// As the request's own: how it is looked for is no part of the state.
impl Hash for Asked {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key.hash(hasher);
    }
}

impl State {
    /// How many answers are remembered.
    pub fn answers_len(&self) -> usize {
        self.answers.len()
    }

    /// The first answer to a request and the revision at which it was done, or the refusal of its id; None if it is new.
    /// O(log n).
    pub fn answered(
        &self,
        caller: &Caller,
        request: Option<&Request>,
    ) -> Option<Result<(Reply, u64), Refusal>> {
        request.and_then(|request| self.answer_to(&Asked::of(caller, request), request))
    }

    pub(crate) fn answer_to(
        &self,
        asked: &Asked,
        request: &Request,
    ) -> Option<Result<(Reply, u64), Refusal>> {
        let answer = self.answers.get(asked)?;
        if answer.fingerprint == request.fingerprint || planted(Bug::AnyBodyAnswered) {
            return Some(Ok((answer.reply.clone(), answer.revision)));
        }
        Some(Err(Refusal::invalid(
            Reason::RequestIdReused,
            "request_id",
            &request.id,
            "a new request id for a new request; this one was used with another body",
        )))
    }

    pub(crate) fn remember(&mut self, asked: Asked, fingerprint: u64, reply: Reply) {
        let expires_at = self.now + self.policy.request_id_keep_s;
        self.keep_answer(asked, Arc::new(Answer { fingerprint, revision: self.revision, expires_at, reply }));
        self.forget_answers_above(ANSWERS_MAX);
    }

    /// Puts an answer where it is looked for.
    pub(crate) fn keep_answer(&mut self, asked: Asked, answer: Arc<Answer>) {
        self.answers_by_expiry.add((answer.expires_at, answer.revision, asked.clone()));
        self.answers.put(asked, answer);
    }

    /// Forgets the answers whose time is up.
    pub(crate) fn expire_answers(&mut self) {
        while let Some(oldest) = self.answers_by_expiry.first().filter(|(at, ..)| *at <= self.now).cloned() {
            self.forget_answer(&oldest);
        }
    }

    fn forget_answers_above(&mut self, most: usize) {
        while self.answers.len() > most {
            let Some(oldest) = self.oldest_answer() else { break };
            self.forget_answer(&oldest);
        }
    }

    /// The first to be forgotten. Coordinators of former formats take, of those that expire together, the first by its
    /// texts.
    fn oldest_answer(&self) -> Option<(i64, u64, Asked)> {
        let first = self.answers_by_expiry.first()?;
        if self.forgets() {
            return Some(first.clone());
        }
        let together = self.answers_by_expiry.keys().take_while(|(at, ..)| *at == first.0);
        together.min_by(|one, other| one.2.key.cmp(&other.2.key)).cloned()
    }

    fn forget_answer(&mut self, oldest: &(i64, u64, Asked)) {
        self.answers_by_expiry.take(oldest);
        self.answers.take(&oldest.2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;
    use crate::scenes::build::*;
    use crate::{Command, PlantId};
    use std::collections::BTreeSet;

    #[test]
    fn of_those_that_expire_together_the_first_that_was_done_goes_and_formerly_the_first_by_name() {
        for (raised, left) in [(false, ["c", "d", "e"]), (true, ["a", "d", "e"])] {
            let mut alliance = Alliance::mills(&["m1"]);
            if raised {
                alliance.ok(operator(), Command::RaiseFormat { to: Format::NEWEST });
            }
            let plant = PlantId::trusted("ya-1");
            for id in ["c", "b", "e", "a", "d"] {
                let attach =
                    Command::AttachAgent { plant: plant.clone(), agent: "a".into(), outbox: id.into() };
                alliance.request(id, 7, attach).result.expect("attached");
            }
            alliance.state.forget_answers_above(3);
            let remembered = alliance.state.answers.iter().map(|(asked, _)| asked.key.id.as_str());
            assert_eq!(remembered.collect::<BTreeSet<_>>(), left.into());
            assert_eq!(alliance.state.answers_len(), 3);
        }
    }

    #[test]
    fn requests_whose_hashes_are_the_same_are_told_apart() {
        let key =
            |id: &str| Arc::new(AnswerKey { caller: buyer("bo"), method: "Book".into(), id: id.into() });
        let [one, other] = ["x", "y"].map(|id| Asked { hash: 1, key: key(id) });
        assert!(one != other && one < other);
        let hash = |asked: &Asked| hash_of(asked);
        assert_eq!(hash(&one), hash_of(&key("x")), "the state's hash is as it was");
    }
}
