//! A machine that reports nothing: what it does is what people tell at the console.
//!
//! Its state is the one that follows from what was told last: set up or producing from a start on, idle after
//! a finish, blocked while it is said to be down. Before anything is told it is unknown. Nothing is guessed
//! from the time of day: an operation whose planned time is up goes on until somebody ends it, and the
//! coordinator is told that it takes longer.

use super::history::{History, Rules};
use super::shop::{Post, Shop, Sight, Watched};
use super::word::{Named, Word, WordError};
use super::{Happened, Power, Running};
use crate::samples::{Reading, Readings};
use millpool_proto::v1::MachineState;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time passes this often: progress.
const TICK: Duration = Duration::from_secs(1);

/// How a machine is followed.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Progress every so many seconds.
    pub progress_s: u32,
    /// What it draws.
    pub power: Power,
}

/// One machine's history.
pub struct Watch(History, Readings);

impl Watch {
    /// A watch as it remembers itself. What is not understood is forgotten: it begins anew.
    pub fn new(options: &Options, memory: Option<&[u8]>) -> Self {
        let mut history: History =
            memory.and_then(|memory| serde_json::from_slice(memory).ok()).unwrap_or_default();
        let Options { progress_s, power } = *options;
        history.rules = Rules { follow_dispatch: false, progress_s, power, ..Rules::default() };
        Self(history, Readings::default())
    }

    /// The setup of the operation at hand is over, if it is the one that is meant.
    fn set_up(&self, named: Option<&Named>) -> Option<String> {
        let (booking_id, operation) = self.0.operation()?;
        let meant = named.is_none_or(|named| {
            named.booking_id == booking_id && named.operation.is_none_or(|own| own == operation)
        });
        (meant && self.0.state() == MachineState::Setup)
            .then(|| format!("{booking_id}/{operation} is set up, and cuts"))
    }

    /// The state after a word was taken in.
    fn state_after(&self, word: &Word) -> MachineState {
        match word {
            Word::Start { setup: true, .. } => MachineState::Setup,
            Word::Start { .. } => MachineState::Producing,
            Word::Count { .. } => self.0.state(),
            Word::Finish { .. } | Word::Scrap { .. } => MachineState::Idle,
            Word::Down { .. } => MachineState::Blocked,
            Word::Up if self.0.operation().is_some() => MachineState::Held,
            Word::Up => MachineState::Idle,
        }
    }
}

impl Watched for Watch {
    fn history(&self) -> &History {
        &self.0
    }

    fn history_mut(&mut self) -> &mut History {
        &mut self.0
    }

    fn memory(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).unwrap_or_default()
    }

    fn read(&self) -> Vec<Reading> {
        vec![Reading::state(self.0.state(), None)]
    }

    fn readings_mut(&mut self) -> &mut Readings {
        &mut self.1
    }

    fn hear(&mut self, now_ms: i64, word: &Word, happened: &mut Vec<Happened>) -> Result<String, WordError> {
        let set_up = match word {
            Word::Start { operation, setup: false, .. } => self.set_up(operation.as_ref()),
            _ => None,
        };
        let answer = match set_up {
            Some(answer) => answer,
            None => self.0.hear(now_ms, word, happened)?,
        };
        self.0.turn_to(now_ms, self.state_after(word), happened);
        self.note(now_ms);
        Ok(answer)
    }
}

/// Follows one machine until `stop`.
pub fn run(machine_id: String, options: Options, mut shop: Shop, stop: CancellationToken) -> Running {
    Box::pin(async move {
        let memory = shop.outbox.mark(&machine_id);
        let mut post = Post::new(machine_id, Watch::new(&options, memory.as_deref()));
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                said = shop.said() => {
                    take_list(&mut post, &mut shop);
                    post.hear(said, Sight::Told, &shop).await?;
                }
                _ = tick.tick() => {
                    take_list(&mut post, &mut shop);
                    let (now_ms, mut happened) = (shop.clock.now_ms(), Vec::new());
                    post.watch.0.pass_time(now_ms, "", &mut happened);
                    post.watch.note(now_ms);
                    post.tell(happened, Sight::Told, &shop).await?;
                }
            }
        }
    })
}

fn take_list(post: &mut Post<Watch>, shop: &mut Shop) {
    if let Some(kept) = shop.new_list() {
        post.take_list(&kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpool_proto::v1::DispatchItem;
    use millpool_proto::v1::agent_event::What;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;

    fn watch() -> Watch {
        let options = Options { progress_s: 900, power: Power::default() };
        let mut watch = Watch::new(&options, None);
        watch.0.set_items(["a", "b"].map(item).into());
        watch
    }

    fn item(booking: &str) -> DispatchItem {
        DispatchItem {
            machine_id: "m".into(),
            booking_id: booking.into(),
            end_s: 3_600,
            run_s: 3_000,
            quantity: 10,
            ..DispatchItem::default()
        }
    }

    fn start(named: &str, setup: bool) -> Word {
        Word::Start { operation: named.parse().ok(), setup, at_ms: None }
    }

    fn finish(good: Option<u32>, scrapped: u32) -> Word {
        Word::Finish { good, scrapped, energy_wh: None, at_ms: None }
    }

    /// What is answered, and what happened, in words.
    fn hear(watch: &mut Watch, at_ms: i64, word: Word) -> (String, Vec<String>) {
        let mut happened = Vec::new();
        let answer = watch.hear(at_ms, &word, &mut happened);
        let words = happened.iter().map(|happened| match &happened.what {
            What::StateChanged(changed) => format!("{:?}", changed.state()),
            What::OperationStarted(started) => format!("started {}", started.booking_id),
            What::OperationProgress(progress) => format!("progress {}", progress.pieces_good),
            What::OperationFinished(done) => {
                format!(
                    "finished {} good, {} bad, {} s",
                    done.pieces_good, done.pieces_scrapped, done.measured_s
                )
            }
            What::OperationScrapped(lost) => format!("scrapped {}: {}", lost.pieces_scrapped, lost.reason),
            What::MachineDown(down) => format!("down until {}: {}", down.expected_until_s, down.reason),
            What::MachineUp(_) => "up".to_owned(),
            What::EvidenceGap(_) | What::RemoteAnswered(_) => "another".to_owned(),
        });
        (answer.unwrap_or_else(|error| format!("refused: {error}")), words.collect())
    }

    #[test]
    fn a_shift_is_told_from_its_first_setup_to_its_last_piece() {
        let mut watch = watch();
        let told = [
            (1, start("", true), "a/0 is started", "started a, Setup"),
            (2, start("a", false), "a/0 is set up, and cuts", "Producing"),
            (3, start("b", false), "refused: a/0 is at hand; finish or scrap it first", ""),
            (4, Word::Count { good: 4, end_ms: None }, "a/0 goes on, 4 good so far", "progress 4"),
            (5, finish(None, 1), "a/0 is finished", "finished 4 good, 1 bad, 240 s, Idle"),
            (6, finish(None, 0), "refused: nothing is at hand on this machine; start it first", ""),
            (
                7,
                start("a/0", false),
                "refused: operation = a/0: accepted is one on this machine's list: b/0",
                "",
            ),
            (8, start("", false), "b/0 is started", "started b, Producing"),
            (8, finish(Some(11), 0), "refused: good = 11: accepted is at most 10, the booking's pieces", ""),
            (8, finish(None, 2), "b/0 is finished", "finished 8 good, 2 bad, 0 s, Idle"),
            (9, start("", false), "refused: nothing is on this machine's list that is not over", ""),
        ];
        for (minute, word, answer, happened) in told {
            let heard = hear(&mut watch, minute * MINUTE, word);
            assert_eq!((heard.0.as_str(), heard.1.join(", ").as_str()), (answer, happened), "at {minute}");
        }
    }

    #[test]
    fn what_is_scrapped_comes_again_when_it_is_listed_for_later() {
        let mut watch = watch();
        hear(&mut watch, HOUR, start("a", false));
        let scrap = Word::Scrap { pieces: None, reason: "chatter".to_owned(), at_ms: None };
        let (_, happened) = hear(&mut watch, 2 * HOUR, scrap);
        assert_eq!(happened, ["progress 0", "scrapped 10: chatter", "Idle"]);
        let (answer, _) = hear(&mut watch, 2 * HOUR, start("a", false));
        assert!(answer.contains("accepted is one on this machine's list: b/0"), "{answer}");
        let again = DispatchItem { start_s: 3 * 3_600, end_s: 4 * 3_600, ..item("a") };
        watch.0.set_items(vec![again]);
        assert_eq!(hear(&mut watch, 3 * HOUR, start("a", false)).0, "a/0 is started");
    }

    #[test]
    fn a_person_takes_a_machine_down_and_brings_it_up() {
        let mut watch = watch();
        assert!(hear(&mut watch, HOUR, Word::Up).0.contains("is not down"));
        let down = |reason: &str, until_ms| Word::Down { reason: reason.to_owned(), until_ms };
        assert!(hear(&mut watch, HOUR, down("", None)).0.contains("reason"));
        assert!(hear(&mut watch, HOUR, down("late", Some(HOUR))).0.contains("until"));
        let (_, happened) = hear(&mut watch, HOUR, down("spindle bearing", Some(2 * HOUR)));
        assert_eq!(happened, ["down until 7200: spindle bearing", "Blocked"]);
        let (_, happened) = hear(&mut watch, HOUR, down("spindle bearing", Some(5 * HOUR)));
        assert_eq!(happened, ["down until 18000: spindle bearing"]);
        let mut again =
            Watch::new(&Options { progress_s: 900, power: Power::default() }, Some(&watch.memory()));
        assert_eq!(hear(&mut again, 2 * HOUR, Word::Up).1, ["up", "Idle"]);
    }

    #[test]
    fn what_the_coordinator_knows_to_have_begun_is_taken_up_again_and_not_told_twice() {
        let mut watch = watch();
        watch.0.set_items(vec![DispatchItem { running: true, ..item("a") }]);
        let at_ms = Some(HOUR / 2);
        let (_, happened) = hear(&mut watch, HOUR, Word::Start { operation: None, setup: false, at_ms });
        assert_eq!(happened, ["Producing"]);
        let (_, happened) = hear(&mut watch, HOUR, finish(None, 0));
        assert_eq!(happened, ["finished 10 good, 0 bad, 1800 s", "Idle"]);
    }
}
