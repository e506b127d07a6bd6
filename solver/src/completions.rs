//! The makespan of a plan under change.

use crate::Tick;

/// When the kept jobs end, and the latest of it: a tree of maxima, O(log jobs) a change.
#[derive(Clone, Debug)]
pub(crate) struct Completions {
    /// The root is at 1, the children of `i` at `2 i` and `2 i + 1`, the jobs in the last half.
    tree: Vec<Tick>,
}

impl Completions {
    pub(crate) fn new(jobs: usize) -> Completions {
        Completions { tree: vec![0; 2 * jobs.max(1)] }
    }

    pub(crate) fn latest(&self) -> Tick {
        self.tree[1]
    }

    pub(crate) fn set(&mut self, job: usize, end: Tick) {
        let mut i = self.tree.len() / 2 + job;
        self.tree[i] = end;
        while i > 1 {
            i /= 2;
            self.tree[i] = self.tree[2 * i].max(self.tree[2 * i + 1]);
        }
    }
}
