//! The alliance's state as the consensus room drives it: bytes in, outcomes out.

use crate::consensus::{Applied, ApplyError, DecodeError, Revision, StateMachine};
use crate::planted::{Bug, planted};
use crate::wire;
use millpool_alliance::command::Changes;
use millpool_alliance::{Format, Outcome, State};
use std::sync::Arc;

/// The state machine of the log, and the newest format that this node reads.
#[derive(Clone)]
pub struct Replica(pub State, pub Format);

impl Default for Replica {
    fn default() -> Self {
        Self(State::default(), Format::NEWEST)
    }
}

impl StateMachine for Replica {
    type Reply = Arc<Outcome>;
    type Event = Arc<Changes>;

    fn apply(
        &mut self,
        revision: Revision,
        entry: &[u8],
    ) -> Result<Applied<Self::Reply, Self::Event>, ApplyError> {
        let entry = wire::command::decode(entry, self.1).map_err(|refusal| ApplyError(refusal.message))?;
        let outcome = self.0.apply(revision, &entry);
        let event = Arc::new(outcome.changes.clone());
        Ok(Applied { reply: Arc::new(outcome), event: Some(event) })
    }

    fn encode(&self) -> Vec<u8> {
        wire::snapshot::encode(&self.0.image())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self, DecodeError> {
        let image = wire::snapshot::decode(bytes, self.1);
        let mut image = image.map_err(|refusal| DecodeError(refusal.message))?;
        if planted(Bug::AnswersForgotten) {
            image.answers.clear();
        }
        Ok(Replica(State::from_image(image), self.1))
    }

    fn format(&self) -> u32 {
        self.0.format().number()
    }

    fn hash(&self) -> u64 {
        self.0.hash()
    }
}
