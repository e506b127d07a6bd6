//! Permissions to start: given, used up, or taken back when what they rest on is lost.

use super::{Omitted, Remote};
use crate::outbox::OutboxError;
use crate::remote::guard::LEASE;
use crate::remote::permit::{Permit, lock};
use crate::remote::{Answer, Asked, Bid, Came, Verb};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A permission to start is taken back within this time, or tried again.
const REVOKE_WITHIN: Duration = Duration::from_secs(5);

/// A permission to start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Grant {
    machine_id: String,
    pub(super) job: String,
    /// By which command it was given: its session and number.
    epoch: u64,
    nonce: u32,
    /// Whose session it was.
    holder: String,
}

impl Grant {
    pub(super) fn by(asked: &Asked) -> Self {
        let (machine_id, job) = (asked.machine_id.clone(), asked.job());
        Self { machine_id, job, epoch: asked.epoch, nonce: asked.nonce, holder: asked.holder.clone() }
    }

    /// Whether another was given for the same job before.
    fn replaces(&self, other: &Grant) -> bool {
        (&self.machine_id, &self.job) == (&other.machine_id, &other.job)
            && (other.epoch, other.nonce) < (self.epoch, self.nonce)
    }
}

/// A permission that is being taken back.
pub(super) struct Revoking {
    why: &'static str,
    /// It is tried again after this.
    again: Instant,
    answered: oneshot::Receiver<Answer>,
}

impl Remote {
    /// What a command's outcome means for permissions to start. Answers may be heard in another order than that in which
    /// the machine gave them: the commands' numbers tell which came first.
    pub(super) fn note_grant(&mut self, asked: &Asked, came: &Came) {
        let own = Grant::by(asked);
        let ends = matches!(
            asked.act.verb(),
            Some(Verb::Start | Verb::RevokeStart | Verb::Stop | Verb::Abort | Verb::Cancel)
        );
        match came {
            Came::Answered { done: true, .. } if ends => {
                self.memory.granted.retain(|grant| !own.replaces(grant));
                self.revoking.retain(|grant, _| !own.replaces(grant));
            }
            // It was not given; an earlier one may stand.
            Came::NotAsked(_) | Came::Rejected(_) | Came::Answered { done: false, .. } => {
                self.memory.granted.remove(&own);
            }
            Came::Answered { .. } | Came::Done(_) | Came::NoAnswer(_) => {}
        }
    }

    /// Takes permissions to start back whose session is over, that were given over a line that is lost since, or to which
    /// nobody agrees any more.
    pub(super) async fn revoke_lost(&mut self) -> Result<(), OutboxError> {
        if self.omits(Omitted::TakeBack) {
            return Ok(());
        }
        self.note_revoked().await?;
        let now = Instant::now();
        let line = self.options.line.borrow().clone();
        let alive = line.alive.is_some_and(|alive| now - alive <= LEASE);
        let consents = lock(&self.consents).clone();
        let agreed = |Grant { machine_id, job, holder, .. }: &Grant| {
            let hand = self.options.hands.get(machine_id);
            hand.is_some_and(|hand| consents.find(machine_id, job, holder, &hand.rule, now).is_some())
        };
        let open = |grant: &Grant| line.sessions.iter().any(|session| session.epoch == grant.epoch);
        let why = |grant: &Grant| match () {
            () if !alive => Some("the line to the coordinator was lost"),
            () if !open(grant) => Some("the session is over"),
            () if !agreed(grant) && !self.omits(Omitted::Consent) => Some("the plant agrees no more"),
            () => None,
        };
        let standing = self.memory.granted.iter().filter(|grant| !self.revoking.contains_key(*grant));
        let lost: Vec<_> = standing.filter_map(|grant| Some((grant.clone(), why(grant)?))).collect();
        for (grant, why) in lost {
            let Some(hand) = self.options.hands.get(&grant.machine_id) else { continue };
            let (deadline, (answer, answered)) = (now + REVOKE_WITHIN, oneshot::channel());
            let bid = Bid {
                of: None,
                machine_id: grant.machine_id.clone(),
                verb: Verb::RevokeStart,
                job: grant.job.clone(),
                program: String::new(),
                pinned: None,
                planned_ms: None,
                permit: Permit::TakeBack { deadline },
                answer,
            };
            // Where there is no room it is tried again.
            let _ = hand.bids.try_send(bid);
            self.revoking.insert(grant, Revoking { why, again: deadline, answered });
        }
        Ok(())
    }

    /// What has become of the permissions that are being taken back. What was taken back is told, beside the command that
    /// gave it.
    async fn note_revoked(&mut self) -> Result<(), OutboxError> {
        let now = Instant::now();
        let mut answered = Vec::new();
        self.revoking.retain(|grant, revoking| match revoking.answered.try_recv() {
            // Done, or there is nothing to take back: it runs, is over, or is not there.
            Ok(Answer { came: came @ (Came::Answered { .. } | Came::Rejected(_)), .. }) => {
                answered.push((grant.clone(), revoking.why, came));
                false
            }
            _ => now < revoking.again,
        });
        let mut events = Vec::new();
        for (grant, why, came) in &answered {
            tracing::warn!(
                plant = self.options.plant_id,
                machine = grant.machine_id,
                job = grant.job,
                why,
                ?came,
                "a permission to start is taken back, unless it was used"
            );
            self.memory.granted.remove(grant);
            if let Came::Answered { done: true, words, status } = came {
                let (done, status, words) = (true, *status, format!("{why}; the machine: {words}"));
                let answer = Answer { interlocks: Vec::new(), came: Came::Answered { done, status, words } };
                let outcome = self.outcome(String::new(), answer);
                events.push(self.event(&grant.machine_id, (grant.epoch, grant.nonce), outcome, true));
            }
        }
        if answered.is_empty() { Ok(()) } else { self.keep(events).await }
    }
}
