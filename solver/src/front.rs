//! Dominance among placements, their time aside: cost, what is charged, carbon.

use crate::Fen;

/// Which of those that come in the order of their time are better than all before them in something.
#[derive(Debug, Default)]
pub(crate) struct Front {
    /// By cost: no two of these are as good as each other in all.
    kept: Vec<(Fen, Fen, i64)>,
}

impl Front {
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }

    /// Whether none before is as cheap and, where it counts, charged as little and as green. O(log kept) where at
    /// most one of these counts, else O(kept).
    pub(crate) fn admits(
        &mut self,
        cost: Fen,
        (by_charge, charge): (bool, Fen),
        (by_carbon, carbon): (bool, i64),
    ) -> bool {
        if !by_charge && !by_carbon {
            let cheaper = self.kept.first().is_none_or(|k| cost < k.0);
            if cheaper {
                self.kept.clear();
                self.kept.push((cost, 0, 0));
            }
            return cheaper;
        }
        let both = by_charge && by_carbon;
        let charge = if by_charge { charge } else { 0 };
        let carbon = if by_carbon { carbon } else { 0 };
        let at = self.kept.partition_point(|k| k.0 <= cost);
        let as_good = |k: &(Fen, Fen, i64)| k.1 <= charge && k.2 <= carbon;
        // With one measure beside the cost, the dearest of the cheaper ones is the best of them in it.
        let beaten = match both {
            true => self.kept[..at].iter().any(as_good),
            false => at.checked_sub(1).is_some_and(|i| as_good(&self.kept[i])),
        };
        if !beaten {
            let worse = |k: &&(Fen, Fen, i64)| charge <= k.1 && carbon <= k.2;
            let first =
                at - self.kept[..at].iter().rev().take_while(|k| k.0 == cost).take_while(worse).count();
            let beats = if both { 0 } else { self.kept[at..].iter().take_while(worse).count() };
            self.kept.splice(first..at + beats, [(cost, charge, carbon)]);
        }
        !beaten
    }
}
