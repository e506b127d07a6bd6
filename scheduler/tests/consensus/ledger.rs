//! The smallest state machine worth replicating: it writes down which entries came, in order.

use bytes::Bytes;
use millpool_scheduler::consensus::{Applied, ApplyError, DecodeError, Revision, StateMachine};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Every number applied, with the revision that it got.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    pub lines: Arc<Vec<(Revision, u64)>>,
    /// Not part of the state: while it is set, this node's hash is wrong.
    pub lies: Arc<AtomicBool>,
}

/// An entry that carries a number.
pub fn number(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_le_bytes())
}

/// An entry that this version cannot understand.
pub const STRANGE: Bytes = Bytes::from_static(b"strange");

impl Ledger {
    pub fn numbers(&self) -> Vec<u64> {
        self.lines.iter().map(|(_, n)| *n).collect()
    }

    pub fn count(&self, n: u64) -> usize {
        self.lines.iter().filter(|(_, line)| *line == n).count()
    }
}

impl StateMachine for Ledger {
    /// The number, and how many came before it.
    type Reply = (u64, usize);
    type Event = u64;

    fn apply(
        &mut self,
        revision: Revision,
        entry: &[u8],
    ) -> Result<Applied<Self::Reply, Self::Event>, ApplyError> {
        let bytes = entry.get(..8).and_then(|bytes| bytes.try_into().ok());
        let n = bytes.map(u64::from_le_bytes).ok_or_else(|| ApplyError("not a number".into()))?;
        let before = self.lines.len();
        Arc::make_mut(&mut self.lines).push((revision, n));
        Ok(Applied { reply: (n, before), event: Some(n) })
    }

    fn encode(&self) -> Vec<u8> {
        self.lines
            .iter()
            .flat_map(|(revision, n)| [revision.to_le_bytes(), n.to_le_bytes()].concat())
            .collect()
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self, DecodeError> {
        let number = |bytes: &[u8]| {
            let whole = bytes.try_into().map_err(|_| DecodeError("half a line".into()));
            whole.map(u64::from_le_bytes)
        };
        let lines: Result<Vec<_>, DecodeError> =
            bytes.chunks(16).map(|line| Ok((number(&line[..8])?, number(&line[8..])?))).collect();
        Ok(Self { lines: Arc::new(lines?), lies: Arc::default() })
    }

    fn hash(&self) -> u64 {
        let mixed = self.lines.iter().fold(17_u64, |hash, (revision, n)| {
            hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ revision ^ n.rotate_left(32)
        });
        mixed ^ u64::from(self.lies.load(Ordering::Relaxed))
    }
}
