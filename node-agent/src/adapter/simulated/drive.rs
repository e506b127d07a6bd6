//! Drives a simulated machine by the plant's clock.

use super::{Machine, Memory, Options, Over};
use crate::adapter::Happened;
use crate::adapter::mapping::state_name;
use crate::adapter::shop::{News, Shop};
use crate::adapter::word::WordError;
use crate::outbox::OutboxError;
use prost::Message;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Runs a simulated machine by the plant's clock until `stop`.
pub async fn run(
    machine_id: String,
    options: Options,
    mut shop: Shop,
    stop: CancellationToken,
) -> Result<(), OutboxError> {
    let memory = shop.outbox.mark(&machine_id).and_then(|mark| Memory::decode(mark).ok());
    let mut machine = Machine::new(&machine_id, options, memory.unwrap_or_default());
    if let Some(kept) = shop.new_list() {
        machine.set_items(kept.items_of(&machine_id), kept.since_ms);
    }
    show(&machine, &shop);
    loop {
        let now_ms = shop.clock.now_ms();
        let happened = machine.advance(now_ms);
        if !happened.is_empty() {
            tokio::select! {
                // It waits while the outbox is full. What is not written has not happened: its memory is
                // written with it.
                () = stop.cancelled() => return Ok(()),
                told = tell(&machine, happened, &shop) => told?,
            }
            continue;
        }
        let wake = machine.next_ms().map_or(Duration::from_secs(30), |next_ms| shop.clock.until(next_ms));
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wake) => {}
            news = shop.news() => match news {
                News::Over => return Ok(()),
                News::Said(said) => {
                    // Whoever asked may have gone.
                    let _ = said.answer.send(Err(WordError::Simulated));
                }
                News::List(kept) => {
                    // What was due on the old list has happened on the old list.
                    let happened = machine.advance(kept.since_ms);
                    machine.set_items(kept.items_of(&machine_id), kept.since_ms);
                    if !happened.is_empty() {
                        tokio::select! {
                            () = stop.cancelled() => return Ok(()),
                            told = tell(&machine, happened, &shop) => told?,
                        }
                    }
                }
            }
        }
    }
}

async fn tell(machine: &Machine, happened: Vec<Happened>, shop: &Shop) -> Result<(), OutboxError> {
    let memory = machine.memory().encode_to_vec();
    shop.append(&machine.id, happened, memory).await?;
    show(machine, shop);
    Ok(())
}

fn show(machine: &Machine, shop: &Shop) {
    shop.health.machine(&machine.id, |report| {
        report.adapter_state = "running".to_owned();
        report.machine_state = state_name(machine.state()).to_owned();
        report.operation = machine.operation().map(|(booking, operation)| format!("{booking}/{operation}"));
        report.there = true;
        report.over = machine.memory.over.iter().map(Over::shown).collect();
    });
}
