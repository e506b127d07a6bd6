//! Drives a simulated machine by the plant's clock.

use super::{Machine, Memory, Options, Over};
use crate::adapter::mapping::state_name;
use crate::adapter::shop::{News, Shop};
use crate::adapter::word::WordError;
use crate::adapter::{Happened, Running};
use crate::outbox::OutboxError;
use crate::samples::{Quality, Reading, Readings, Signal};
use millpool_proto::v1::MachineState;
use millpool_proto::v1::agent_event::What;
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Runs a simulated machine by the plant's clock until `stop`.
pub fn run(machine_id: String, options: Options, mut shop: Shop, stop: CancellationToken) -> Running {
    Box::pin(async move {
        let memory = shop.outbox.mark(&machine_id).and_then(|mark| Memory::decode(mark).ok());
        let mut machine = Machine::new(&machine_id, options, memory.unwrap_or_default());
        if let Some(kept) = shop.new_list() {
            machine.set_items(kept.items_of(&machine_id), kept.since_ms);
        }
        show(&machine, &shop);
        let mut post = Post::new(&machine, &shop);
        loop {
            let now_ms = shop.clock.now_ms();
            post.pass_time(now_ms, &shop);
            let happened = machine.advance(now_ms);
            if !happened.is_empty() {
                tokio::select! {
                    // It waits while the outbox is full. What is not written has not happened: its memory is
                    // written with it.
                    () = stop.cancelled() => return Ok(()),
                    told = post.tell(&machine, happened, &shop) => told?,
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
                                told = post.tell(&machine, happened, &shop) => told?,
                            }
                        }
                    }
                }
            }
        }
    })
}

/// A post at a simulated machine: what it does is sampled as if it were read.
struct Post {
    name: Arc<str>,
    readings: Readings,
}

impl Post {
    fn new(machine: &Machine, shop: &Shop) -> Self {
        let mut post = Self { name: machine.id.as_str().into(), readings: Readings::default() };
        if machine.begun() {
            post.note(machine, machine.state(), shop.clock.now_ms());
        }
        post
    }

    fn note(&mut self, machine: &Machine, state: MachineState, at_ms: i64) {
        let power_w = machine.options.power.at(state);
        let power = Reading::modelled(Signal::Power, power_w.into());
        self.readings.note(at_ms, &[Reading::state(state, Some(Quality::Modelled)), power]);
    }

    fn pass_time(&mut self, now_ms: i64, shop: &Shop) {
        self.readings.pass_time(now_ms);
        shop.samples.put(&self.name, &mut self.readings);
    }

    async fn tell(
        &mut self,
        machine: &Machine,
        happened: Vec<Happened>,
        shop: &Shop,
    ) -> Result<(), OutboxError> {
        for happened in &happened {
            if let What::StateChanged(changed) = &happened.what {
                self.note(machine, changed.state(), happened.at_ms);
            }
        }
        let memory = machine.memory().encode_to_vec();
        shop.append(&machine.id, happened, memory).await?;
        shop.samples.put(&self.name, &mut self.readings);
        show(machine, shop);
        Ok(())
    }
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
