//! The leader notes which plants' agents are not heard, and which are heard again: what their machines do meanwhile
//! nobody knows ([`millpool_alliance::silence`]).

use super::{Core, operator};
use crate::planted::{Bug, planted};
use millpool_alliance::{Command, Format, PlantId};
use std::time::Duration;
use tokio::time::Instant;

/// How often the leader looks.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Core {
    /// Looks for silent plants until the node stops: those whose agents are away for `silent_after`. One that is away for
    /// less was cut off for a moment, or is being restarted.
    pub(super) async fn watch_for_silence(self, silent_after: Duration) {
        let mut led_since = None;
        let watch = async {
            loop {
                tokio::time::sleep(LOOK_AGAIN).await;
                match self.consensus.leadership().is_ready {
                    // While another led, agents were at home there.
                    true => {
                        let led_since = *led_since.get_or_insert_with(Instant::now);
                        self.note_silences(led_since, silent_after).await;
                    }
                    false => led_since = None,
                }
            }
        };
        tokio::select! {
            _ = self.consensus.stop_reason() => {}
            () = watch => {}
        }
    }

    async fn note_silences(&self, led_since: Instant, silent_after: Duration) {
        let state = self.applied();
        if state.format() < Format::SILENCES {
            return;
        }
        let turned: Vec<_> = state
            .agents()
            .iter()
            .filter_map(|(plant, _)| {
                let noted = state.silences().get(plant).is_some();
                match self.seats.away_since(plant, led_since) {
                    None if noted && !planted(Bug::SilenceForever) => Some((plant.clone(), None)),
                    Some(since) if !noted && since.elapsed() >= silent_after => {
                        Some((plant.clone(), Some(since)))
                    }
                    _ => None,
                }
            })
            .collect();
        drop(state);
        for (plant, away) in turned {
            let since = away.map(|since| self.clock.now_s() - self.clock.stretch_s(since.elapsed()));
            self.note_silence(&plant, since).await;
        }
    }

    async fn note_silence(&self, plant: &PlantId, since: Option<i64>) {
        let command = Command::NoteSilence { plant: plant.clone(), since };
        match (self.planner.execute(operator(), None, command).await, since) {
            (Ok(_), Some(_)) => {
                tracing::warn!(%plant, "nothing is heard of the plant's agent: what its machines do is unknown")
            }
            (Ok(_), None) => tracing::info!(%plant, "the plant's agent is heard again"),
            // It is looked at again.
            (Err(failure), _) => tracing::info!(%plant, %failure, "a plant's silence could not be noted"),
        }
    }
}
