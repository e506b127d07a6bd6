//! A cluster goes on to a newer format once every coordinator understands it.
//!
//! During a rolling upgrade old and new versions work side by side, in the format of the old one. The leader asks the
//! members what they understand, and when the last one is upgraded it says so in the log. From that entry on there is
//! no way back to the old version but a backup.

use crate::api::operator;
use crate::consensus;
use crate::planner;
use crate::planted::{Bug, planted};
use crate::replica::Replica;
use millpool_alliance::{Command, Format};
use std::time::Duration;

/// How often the leader looks whether something is to be done.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How often members are asked while one of them holds the cluster back.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Raises the format, again and again, until the node stops.
pub async fn run(node: consensus::Handle<Replica>, planner: planner::Handle) {
    let stopped = node.stop_reason();
    tokio::select! {
        _ = stopped => {}
        () = watch(&node, &planner) => {}
    }
}

async fn watch(node: &consensus::Handle<Replica>, planner: &planner::Handle) {
    loop {
        let (format, newest) = node.look(|view| (view.state.0.format(), view.state.1));
        let due = format < newest && node.leadership().is_ready;
        let pause = if due && !raise(node, planner, format).await { ASK_AGAIN } else { LOOK_AGAIN };
        tokio::time::sleep(pause).await;
    }
}

/// Goes on to the newest format that everybody understands. Says whether it did.
async fn raise(node: &consensus::Handle<Replica>, planner: &planner::Handle, from: Format) -> bool {
    let understood = match node.understood_by_all().await {
        _ if planted(Bug::FormatRaisedEarly) => Some(Format::NEWEST),
        Ok(number) => Format::of(number),
        Err(error) => {
            tracing::info!(%error, "the format stays {from} while a coordinator cannot be asked");
            return false;
        }
    };
    let Some(to) = understood.filter(|to| *to > from) else { return false };
    match planner.execute(operator(), None, Command::RaiseFormat { to }).await {
        Ok(_) => {
            tracing::info!("every coordinator understands format {to}: the cluster writes it from here on")
        }
        Err(failure) => tracing::warn!(%failure, "the format stays {from}"),
    }
    true
}
