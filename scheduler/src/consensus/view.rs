//! The applied state, where the machine changes it and everybody else looks at it.
//!
//! What somebody holds on to is not changed any more: the entries that come after copy what they change of it. So a
//! [`Snapshot`] is made when it is asked for and not before, and while nobody asks, entries change what is there. Who has
//! a short question about the present puts it by [`Shared::look`], and costs nobody a copy.

use super::types::{LogId, Revision, Term};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The largest entry, in bytes, that is applied while those who look wait: a booking has some hundreds, and takes tens of
/// microseconds; a long report takes some milliseconds. A whole plan, which takes longer, is applied beside what they see.
const IN_PLACE_BYTES_MAX: usize = 16 * 1024;

/// An applied state, as it was at one revision.
#[derive(Debug, Clone)]
pub struct View<S> {
    /// The last entry applied; 0 before the first.
    pub revision: Revision,
    /// The term of that entry's leader; 0 before the first.
    pub term: Term,
    /// The state.
    pub state: S,
}

/// An applied state, shared.
pub type Snapshot<S> = Arc<View<S>>;

/// The newest applied state. A clone is the same one.
#[derive(Clone)]
pub(super) struct Shared<S>(Arc<Mutex<Current<S>>>);

struct Current<S> {
    view: View<S>,
    /// The same, since somebody has asked for it.
    taken: Option<Snapshot<S>>,
    /// No entry has stumbled in the middle of changing it.
    whole: bool,
}

impl<S: Clone> Shared<S> {
    pub(super) fn new(state: S) -> Self {
        let view = View { revision: 0, term: 0, state };
        Shared(Arc::new(Mutex::new(Current { view, taken: None, whole: true })))
    }

    fn lock(&self) -> MutexGuard<'_, Current<S>> {
        // A question that stumbles has changed nothing.
        let current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An entry that does ends the log's core, and its node with it.
        assert!(current.whole, "an entry has left the state half changed");
        current
    }

    /// Puts a question to the present state. Who asks must not ask for another look meanwhile.
    pub(super) fn look<T>(&self, question: impl FnOnce(&View<S>) -> T) -> T {
        question(&self.lock().view)
    }

    /// The present state, to be kept.
    pub(super) fn snapshot(&self) -> Snapshot<S> {
        let mut current = self.lock();
        let Current { view, taken, .. } = &mut *current;
        taken.get_or_insert_with(|| Arc::new(view.clone())).clone()
    }

    /// Applies an entry of so many bytes. Where `change` fails it must have changed nothing.
    pub(super) fn advance<T, E>(
        &self,
        at: LogId,
        bytes: usize,
        change: impl FnOnce(&mut S) -> Result<T, E>,
    ) -> Result<T, E> {
        if bytes > IN_PLACE_BYTES_MAX {
            let mut state = self.look(|view| view.state.clone());
            let done = change(&mut state)?;
            self.replace(at, state);
            return Ok(done);
        }
        let mut current = self.lock();
        current.taken = None;
        current.whole = false;
        let done = change(&mut current.view.state);
        current.whole = true;
        let done = done?;
        (current.view.revision, current.view.term) = (at.index, at.leader_id.term);
        Ok(done)
    }

    /// Puts another state in place of this one.
    pub(super) fn replace(&self, at: LogId, state: S) {
        let view = View { revision: at.index, term: at.leader_id.term, state };
        let former = std::mem::replace(&mut *self.lock(), Current { view, taken: None, whole: true });
        // A large one takes a while to go, for which nobody waits.
        drop(former);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::vote::leader_id_std::CommittedLeaderId;

    fn at(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(7), index)
    }

    fn add(state: &mut Vec<u64>, line: u64) -> Result<usize, ()> {
        state.push(line);
        Ok(state.len())
    }

    #[test]
    fn what_somebody_keeps_is_not_changed_by_what_comes_after_it() {
        let shared = Shared::new(Vec::new());
        for (index, bytes) in [(1, 0), (2, IN_PLACE_BYTES_MAX), (3, IN_PLACE_BYTES_MAX + 1), (4, 1)] {
            let kept = shared.snapshot();
            let before: Vec<u64> = (1..index).collect();
            assert_eq!(shared.advance(at(index), bytes, |state| add(state, index)), Ok(index as usize));
            assert_eq!((kept.revision, &kept.state), (index - 1, &before));
            let now = shared.look(|view| (view.revision, view.term, view.state.clone()));
            assert_eq!(now, (index, 7, (1..=index).collect()));
            assert!(Arc::ptr_eq(&shared.snapshot(), &shared.snapshot()), "made once for all who ask");
        }
    }

    #[test]
    fn an_entry_that_fails_is_not_applied() {
        let shared = Shared::new(vec![1]);
        for bytes in [1, IN_PLACE_BYTES_MAX + 1] {
            assert_eq!(shared.advance(at(1), bytes, |_| Err::<(), _>("no")), Err("no"));
            assert_eq!(shared.look(|view| (view.revision, view.state.clone())), (0, vec![1]));
        }
        shared.replace(at(9), vec![2]);
        assert_eq!(shared.snapshot().revision, 9);
    }

    #[test]
    fn what_an_entry_has_left_half_changed_is_shown_to_nobody() {
        let shared = Shared::new(vec![1]);
        let stumbles = |state: &mut Vec<u64>| -> Result<(), ()> {
            state.clear();
            panic!("in the middle of it")
        };
        let of = shared.clone();
        let stumbled =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| of.advance(at(1), 1, stumbles)));
        assert!(stumbled.is_err());
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shared.snapshot())).is_err());
    }

    #[test]
    fn a_question_that_stumbles_harms_nobody() {
        let shared = Shared::new(vec![1]);
        let asks = std::panic::AssertUnwindSafe(|| shared.look(|_| panic!("what?")));
        assert!(std::panic::catch_unwind(asks).is_err());
        assert_eq!(shared.advance(at(1), 1, |state| add(state, 2)), Ok(2));
        assert_eq!(shared.look(|view| view.state.clone()), vec![1, 2]);
    }
}
