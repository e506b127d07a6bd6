//! Known bugs, one of which can be planted in a simulation, to see that it is found.

use clap::ValueEnum;
use millpool_scheduler::consensus::disk::memory::Bug as DiskBug;

/// A defect to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bug {
    /// The disk says that it has kept what it has not
    SkipFsync,
    /// A vote does not survive a power loss
    ForgetVote,
    /// A write is answered once it is on its way
    AnswerBeforeCommit,
    /// A state from a snapshot does not know which requests are done
    ApplyTwice,
    /// A fresh read is answered from what the node knows
    StaleRead,
    /// A known request id is answered whatever is asked under it
    AnyBody,
    /// An optimised plan is spoilt, and nobody checks it
    UncheckedPlan,
    /// An optimised plan is spoilt, and checked: this one is not to be found
    SpoiltPlan,
    /// Watchers do not learn that a snapshot has taken changes away
    DropWatchEvent,
    /// The cluster goes on to a newer format before its last node is upgraded
    RaiseEarly,
    /// What is over is forgotten sooner than the policy says
    ForgetTooSoon,
    /// A plant that is heard again goes on to count as silent
    StaySilent,
}

impl Bug {
    /// The defect, if it is one of the disk's.
    pub fn of_the_disk(self) -> Option<DiskBug> {
        match self {
            Bug::SkipFsync => Some(DiskBug::SkipSync),
            Bug::ForgetVote => Some(DiskBug::ForgetVote),
            _ => None,
        }
    }

    /// Plants what is not the disk's.
    pub fn plant(self) {
        use millpool_alliance::planted::Bug as StateBug;
        use millpool_scheduler::planted::Bug as NodeBug;
        let (state, node): (&[StateBug], &[NodeBug]) = match self {
            Bug::SkipFsync | Bug::ForgetVote => (&[], &[]),
            Bug::AnswerBeforeCommit => (&[], &[NodeBug::AnsweredBeforeCommit]),
            Bug::ApplyTwice => (&[], &[NodeBug::AnswersForgotten]),
            Bug::StaleRead => (&[], &[NodeBug::ReadsStale]),
            Bug::AnyBody => (&[StateBug::AnyBodyAnswered], &[]),
            Bug::UncheckedPlan => (
                &[StateBug::OverlapUnchecked, StateBug::TransportIgnored, StateBug::FrozenUnchecked],
                &[NodeBug::PlanSpoilt],
            ),
            Bug::SpoiltPlan => (&[], &[NodeBug::PlanSpoilt]),
            Bug::DropWatchEvent => (&[], &[NodeBug::WatchGapHidden]),
            Bug::RaiseEarly => (&[], &[NodeBug::FormatRaisedEarly]),
            Bug::ForgetTooSoon => (&[StateBug::ForgottenTooSoon], &[]),
            Bug::StaySilent => (&[], &[NodeBug::SilenceForever]),
        };
        millpool_alliance::planted::plant(state);
        millpool_scheduler::planted::plant(node);
    }

    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
