//! Carries a bid out: reads the machine for the purpose, looks at the interlocks, and calls at once, or not at all.

use super::jobs::{JobControl, Order, ReturnStatus, Verb};
use super::watch::Watch;
use super::{Trouble, seen};
use crate::remote::interlock::{self, Fitness, TELEMETRY_AGE_MAX};
use crate::remote::{Answer, Bid, Came};
use opcua_client::Session;
use opcua_types::{AttributeId, ReadValueId, TimestampsToReturn};
use tokio::time::Instant;

/// Asks the machine, if it is fit for it, and says what came of it.
pub async fn carry_out(
    session: &Session,
    control: &JobControl,
    watch: &Watch,
    namespaces: &[String],
    bid: &Bid,
) -> Answer {
    let mut interlocks = Vec::new();
    if bid.verb.moves() || bid.pinned.is_some() {
        // Before the machine is read: a long program takes a while, and nothing else may be older than now.
        interlocks.push(interlock::program(bid.pinned.as_ref()).await);
    }
    if bid.verb.moves() {
        match read(session, watch, namespaces).await {
            Ok(fitness) => interlocks.extend(interlock::check(bid.verb, &bid.job, &fitness)),
            Err(trouble) => return Answer::not_asked(format!("the machine cannot be read: {trouble}")),
        }
    }
    if let Some(open) = interlocks.iter().find(|lock| !lock.holds) {
        let came = Came::NotAsked(format!("interlock {:?} is open: {}", open.name, open.seen));
        return Answer { interlocks, came };
    }
    if let Err(why) = bid.permit.check() {
        return Answer { interlocks, came: Came::NotAsked(why) };
    }
    let called = match bid.verb {
        Verb::Store | Verb::Update => control.store(session, bid.verb, &order(bid)).await,
        verb => control.ask(session, verb, &bid.job).await,
    };
    Answer { interlocks, came: came(called) }
}

fn order(bid: &Bid) -> Order {
    Order {
        id: bid.job.clone(),
        description: format!("Millpool {}", bid.job),
        program: bid.program.clone(),
        start_ms: bid.planned_ms.map(|(start_ms, _)| start_ms),
        end_ms: bid.planned_ms.map(|(_, end_ms)| end_ms),
    }
}

fn came(called: Result<ReturnStatus, Trouble>) -> Came {
    match called {
        Ok(status) => Came::Answered { done: status.is_done(), status: status.0, words: status.to_string() },
        Err(Trouble::Refused(why)) => Came::Rejected(why),
        // It was sent: what became of it nobody knows.
        Err(trouble) => Came::NoAnswer(trouble.to_string()),
    }
}

/// Reads everything that is watched, as it is now. What is not plainly good counts as unreadable.
async fn read(session: &Session, watch: &Watch, namespaces: &[String]) -> Result<Fitness, Trouble> {
    let begun = Instant::now();
    let variables = watch.variables();
    let wanted: Vec<_> = variables
        .iter()
        .map(|variable| ReadValueId {
            node_id: variable.node.clone(),
            attribute_id: AttributeId::Value as u32,
            ..ReadValueId::default()
        })
        .collect();
    let read = session.read(&wanted, TimestampsToReturn::Both, 0.0);
    let read = tokio::time::timeout(TELEMETRY_AGE_MAX, read).await;
    let values = read.map_err(|_| Trouble::TooLate(TELEMETRY_AGE_MAX))??;
    let mut signals = watch.signals().emptied();
    for (at, (variable, value)) in variables.iter().zip(values).enumerate() {
        if value.status.is_none_or(|status| status.is_good()) {
            signals.take(variable.signal, variable.facet, seen(at, value, namespaces).value);
        }
    }
    let door = signals.door();
    Ok(Fitness {
        age: begun.elapsed(),
        state: signals.state(),
        door_closed: door.flatten(),
        door_unreadable: door == Some(None),
        jobs: signals.jobs(),
    })
}
