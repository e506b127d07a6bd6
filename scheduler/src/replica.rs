//! The alliance's state as the consensus room drives it: bytes in, outcomes out.

use crate::consensus::{Applied, ApplyError, DecodeError, Revision, StateMachine};
use crate::planted::{Bug, planted};
use crate::wire;
use millpool_alliance::command::Changes;
use millpool_alliance::{Outcome, State};
use std::sync::Arc;

/// The state machine of the log.
#[derive(Clone, Default)]
pub struct Replica(pub State);

impl StateMachine for Replica {
    type Reply = Arc<Outcome>;
    type Event = Arc<Changes>;

    fn apply(
        &mut self,
        revision: Revision,
        entry: &[u8],
    ) -> Result<Applied<Self::Reply, Self::Event>, ApplyError> {
        let entry = wire::command::decode(entry).map_err(|refusal| ApplyError(refusal.message))?;
        let outcome = self.0.apply(revision, &entry);
        let event = Arc::new(outcome.changes.clone());
        Ok(Applied { reply: Arc::new(outcome), event: Some(event) })
    }

    fn encode(&self) -> Vec<u8> {
        wire::snapshot::encode(&self.0.image())
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut image = wire::snapshot::decode(bytes).map_err(|refusal| DecodeError(refusal.message))?;
        if planted(Bug::AnswersForgotten) {
            image.answers.clear();
        }
        Ok(Replica(State::from_image(image)))
    }

    fn hash(&self) -> u64 {
        self.0.hash()
    }
}
