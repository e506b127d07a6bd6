//! What a person says of the operation at hand.

use super::{AHEAD_MAX_MS, Follower, Item, Options, Told};
use crate::adapter::Happened;
use crate::adapter::word::{Named, WordError, stamp, told_reason, told_time};
use millpool_proto::v1::OperationScrapped;
use millpool_proto::v1::agent_event::What;

/// Items that are named in an answer.
const NAMED_MAX: usize = 8;

/// What a person says of an operation that is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoneByHand {
    /// Pieces finished well.
    pub good: Option<u32>,
    /// Pieces scrapped.
    pub scrapped: u32,
    /// What a meter says, Wh.
    pub energy_wh: Option<u64>,
    /// When, ms since the Unix epoch.
    pub at_ms: Option<i64>,
}

impl Follower {
    /// An operation was begun by hand. One that has begun, as far as the coordinator knows, is taken up
    /// again and not told twice. Answers with its name.
    pub fn start_by_hand(
        &mut self,
        now_ms: i64,
        named: Option<&Named>,
        at_ms: Option<i64>,
        options: &Options,
        happened: &mut Vec<Happened>,
    ) -> Result<String, WordError> {
        happened.extend(self.tell(now_ms, Told::Time, options));
        if let Some(running) = &self.running {
            return Err(WordError::AtHand(running.item.job_id()));
        }
        let item = self.named(named)?.clone();
        let started_ms = told_time(at_ms, i64::MIN, now_ms)?;
        let (name, begun) = (item.job_id(), item.begun);
        let mut started = Vec::new();
        self.start(item, started_ms, false, options, &mut started);
        happened.extend(started.into_iter().filter(|_| !begun));
        Ok(name)
    }

    /// The item on the list that is meant: the first that is not over, where none is named.
    fn named(&self, named: Option<&Named>) -> Result<&Item, WordError> {
        let mut open = self.items.iter().filter(|item| !self.is_over(item));
        let Some(named) = named else { return open.next().ok_or(WordError::NothingListed) };
        let meant = |item: &&Item| {
            item.booking_id == named.booking_id && named.operation.is_none_or(|own| own == item.operation)
        };
        let listed: Vec<_> = open.collect();
        match listed.iter().filter(|item| meant(item)).collect::<Vec<_>>()[..] {
            [only] => Ok(only),
            _ if listed.is_empty() => Err(WordError::NothingListed),
            _ => {
                let names: Vec<_> = listed.iter().take(NAMED_MAX).map(|item| item.job_id()).collect();
                Err(WordError::NotListed { named: named.to_string(), listed: names.join(", ") })
            }
        }
    }

    /// So many pieces of the operation at hand are good, and it is expected to end then.
    pub fn count_by_hand(
        &mut self,
        now_ms: i64,
        good: u32,
        end_ms: Option<i64>,
        options: &Options,
        happened: &mut Vec<Happened>,
    ) -> Result<String, WordError> {
        happened.extend(self.tell(now_ms, Told::Time, options));
        let running = self.running.as_mut().ok_or(WordError::NothingAtHand)?;
        running.item.check_pieces("good", good)?;
        if let Some(end_ms) = end_ms.filter(|end_ms| *end_ms < now_ms || *end_ms > now_ms + AHEAD_MAX_MS) {
            return Err(WordError::field("end", stamp(end_ms), "a time to come, within 90 days"));
        }
        running.counted = good;
        running.item.end_ms = end_ms.unwrap_or(running.item.end_ms);
        let mut progress = running.progress(now_ms);
        if let (What::OperationProgress(told), Some(end_ms)) = (&mut progress.what, end_ms) {
            told.expected_end_s = end_ms / 1000;
        }
        happened.push(progress);
        Ok(running.item.job_id())
    }

    /// The operation at hand is done: so many pieces, so much energy, as far as is said.
    pub fn finish_by_hand(
        &mut self,
        now_ms: i64,
        done: &DoneByHand,
        options: &Options,
        happened: &mut Vec<Happened>,
    ) -> Result<String, WordError> {
        happened.extend(self.tell(now_ms, Told::Time, options));
        let running = self.running.as_ref().ok_or(WordError::NothingAtHand)?;
        let at_ms = told_time(done.at_ms, running.started_ms, now_ms)?;
        let mut finished = running.finished(at_ms);
        if done.good.is_none() && running.counted == 0 {
            finished.pieces_good = running.item.quantity.saturating_sub(done.scrapped);
        }
        finished.pieces_good = done.good.unwrap_or(finished.pieces_good);
        finished.pieces_scrapped = done.scrapped;
        running.item.check_pieces("good", done.good.unwrap_or(0))?;
        running.item.check_pieces("scrapped", done.scrapped)?;
        if let Some(energy_wh) = done.energy_wh {
            (finished.energy_wh, finished.energy_measured) = (energy_wh, true);
        }
        let item = running.item.clone();
        self.running = None;
        self.end(&item);
        happened.push(Happened { at_ms, what: What::OperationFinished(finished) });
        Ok(item.job_id())
    }

    /// The operation at hand is lost, and has to be done again.
    pub fn scrap_by_hand(
        &mut self,
        now_ms: i64,
        pieces: Option<u32>,
        reason: &str,
        at_ms: Option<i64>,
        options: &Options,
        happened: &mut Vec<Happened>,
    ) -> Result<String, WordError> {
        happened.extend(self.tell(now_ms, Told::Time, options));
        let running = self.running.as_ref().ok_or(WordError::NothingAtHand)?;
        let at_ms = told_time(at_ms, running.started_ms, now_ms)?;
        let reason = told_reason(reason)?;
        let item = running.item.clone();
        let pieces_scrapped = pieces.unwrap_or(item.quantity);
        item.check_pieces("pieces", pieces_scrapped)?;
        let (booking_id, operation) = (item.booking_id.clone(), item.operation);
        self.running = None;
        self.active_since_ms = None;
        self.scrapped.retain(|lost| (&lost.0, lost.1) != (&booking_id, operation));
        self.scrapped.push((booking_id.clone(), operation, now_ms));
        let scrapped = OperationScrapped { booking_id, operation, pieces_scrapped, reason };
        happened.push(Happened { at_ms, what: What::OperationScrapped(scrapped) });
        Ok(item.job_id())
    }
}

impl Item {
    fn check_pieces(&self, field: &'static str, pieces: u32) -> Result<(), WordError> {
        if pieces <= self.quantity {
            return Ok(());
        }
        Err(WordError::field(field, pieces, format!("at most {}, the booking's pieces", self.quantity)))
    }
}
