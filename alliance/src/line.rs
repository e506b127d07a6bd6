//! One machine in the plan: when it is open, and what occupies it.
//!
//! The rule of an occupation: it begins with the changeover from the family before it, then its work; a
//! planned one starts on a tick inside an open window and ends where [`Windows::finish`] says. Occupations
//! do not overlap. [`Station::settle`] derives changeovers and ends and names what breaks the rule, so that
//! nobody's arithmetic is believed.
//!
//! Between an edit and the next settling, an occupation whose changeover the edit may have changed is
//! **unsettled**: it ends where it starts. So settling costs what has changed, not what stands.

use crate::digest::hash_of;
use crate::id::{BookingId, MachineId};
use crate::planted::{Bug, planted};
use crate::registry::Machine;
use crate::window::{TICK_S, Window, Windows, ceil_tick};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Occupations on either side among which one of the same family is looked for.
const NEIGHBOURS: usize = 16;

/// Occupations for which the copy of a line has room.
const LINE_ROOM: usize = 4;

/// What a machine was last reported to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MachineState {
    /// Nobody knows.
    Unknown,
    /// Switched off.
    Off,
    /// On, with nothing to do.
    Idle,
    /// Being set up.
    Setup,
    /// Running in automatic mode.
    Producing,
    /// Stopped within a program.
    Held,
    /// Fault or emergency stop.
    Blocked,
    /// Under maintenance.
    Maintenance,
}

/// What an occupation is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// A booking's operation.
    Work {
        /// The booking.
        booking: BookingId,
        /// Index in the route.
        operation: u32,
    },
    /// A changeover whose work was taken away, kept because what follows counts on its family. A tick of
    /// the work stays with it: nothing in a plan has no work, and it always fits where the work stood.
    Tooling,
}

/// How far an occupation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// To come: start fixed by the plan, end by the rule.
    Planned,
    /// In hand: start and end as the plant reports.
    Running,
    /// Over, kept until its end has passed.
    Done,
}

/// A stretch of a machine's time. Times in seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupation {
    /// Start of the changeover.
    pub start: i64,
    /// End of the work.
    pub end: i64,
    /// The family that the machine is set up for by it.
    pub family: Arc<str>,
    /// What for.
    pub purpose: Use,
    /// Changeover, seconds.
    pub changeover_s: i64,
    /// Work after the changeover, seconds.
    pub work_s: i64,
    /// May pause while the machine is closed.
    pub splittable: bool,
    /// How far.
    pub phase: Phase,
}

/// Each by itself, so that the processor works on several of a long line at once.
impl Hash for Occupation {
    fn hash<H: Hasher>(&self, line: &mut H) {
        let Occupation { start, end, family, purpose, changeover_s, work_s, splittable, phase } = self;
        line.write_u64(hash_of(&(start, end, family, purpose, changeover_s, work_s, splittable, phase)));
    }
}

impl Occupation {
    /// Whether it is the given operation's.
    pub fn is_of(&self, id: &BookingId, index: u32) -> bool {
        matches!(&self.purpose, Use::Work { booking, operation } if *operation == index && booking == id)
    }

    /// The operation whose work it is.
    pub fn operation(&self) -> Option<(BookingId, u32)> {
        match &self.purpose {
            Use::Work { booking, operation } => Some((*booking, *operation)),
            Use::Tooling => None,
        }
    }

    /// Whether its end is known.
    fn is_settled(&self) -> bool {
        self.end > self.start
    }

    /// Its stretch of time.
    pub fn window(&self) -> Window {
        Window::new(self.start, self.end)
    }
}

/// A machine is down.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Down {
    /// Since when, seconds since the Unix epoch.
    pub since: i64,
    /// Expected back, seconds since the Unix epoch.
    pub until: i64,
    /// In words.
    pub reason: String,
}

/// A machine in the plan.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Station {
    /// The machine.
    pub machine: Arc<Machine>,
    /// When it is open to the alliance: what is offered, less what it is down.
    pub open: Windows,
    /// Longest notice of its offers, seconds.
    pub notice_s: i64,
    /// What it was set up for before its first occupation.
    pub family: Option<Arc<str>>,
    /// Occupations by start, from the one in hand on.
    pub line: Vec<Occupation>,
    /// Last reported state.
    pub state: MachineState,
    /// Since when, seconds since the Unix epoch.
    pub state_since: i64,
    /// Down, and until when.
    pub down: Option<Down>,
    /// Revision of the last change of line or windows.
    pub revision: u64,
}

/// Whoever clones a station is about to change it: its line has room for an order's operations, so that a long one is
/// copied once and not again by the first that is put there.
impl Clone for Station {
    fn clone(&self) -> Self {
        let mut line = Vec::with_capacity(self.line.len() + LINE_ROOM);
        line.extend_from_slice(&self.line);
        Station {
            machine: self.machine.clone(),
            open: self.open.clone(),
            notice_s: self.notice_s,
            family: self.family.clone(),
            line,
            state: self.state,
            state_since: self.state_since,
            down: self.down.clone(),
            revision: self.revision,
        }
    }
}

/// An occupation that breaks the rule, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Index in the line.
    pub index: usize,
    /// In words.
    pub how: String,
}

/// What [`Station::settle`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// What breaks the rule, in order.
    pub broken: Vec<Broken>,
    /// The operations whose end or changeover is another than before.
    pub changed: Vec<(BookingId, u32)>,
}

impl Station {
    /// A machine with nothing offered and nothing planned.
    pub fn new(machine: Arc<Machine>) -> Self {
        let family = machine.initial_family.as_deref().map(Arc::from);
        Station {
            machine,
            open: Windows::default(),
            notice_s: 0,
            family,
            line: Vec::new(),
            state: MachineState::Unknown,
            state_since: 0,
            down: None,
            revision: 0,
        }
    }

    /// Its id.
    pub fn id(&self) -> &MachineId {
        &self.machine.id
    }

    /// What a changeover of this length costs the pool, fen.
    pub fn changeover_fen(&self, changeover_s: i64) -> i64 {
        changeover_s * self.machine.setup_rate_fen_per_hour / 3600
    }

    /// The index of an operation's occupation. O(n).
    pub fn find(&self, booking: &BookingId, operation: u32) -> Option<usize> {
        self.line.iter().position(|o| o.is_of(booking, operation))
    }

    /// The index of an operation's occupation, if it had begun by `now`. O(what had begun).
    pub(crate) fn find_begun(&self, booking: &BookingId, operation: u32, now: i64) -> Option<usize> {
        let begun = self.line.iter().take_while(|o| o.start <= now);
        begun.enumerate().find(|(_, o)| o.is_of(booking, operation)).map(|(at, _)| at)
    }

    /// Puts an occupation where its start belongs; the rule is not checked before [`Station::settle`].
    pub fn put(&mut self, mut occupation: Occupation) {
        let at = self.line.partition_point(|o| (o.start, o.end) <= (occupation.start, occupation.end));
        // Neighbours share a family's name, so that hashing a long line finds few names in memory.
        let near = at.saturating_sub(NEIGHBOURS)..self.line.len().min(at + NEIGHBOURS);
        if let Some(same) = self.line[near].iter().find(|o| o.family == occupation.family) {
            occupation.family = same.family.clone();
        }
        self.line.insert(at, occupation);
        self.unsettle(at + 1);
    }

    /// Takes an operation's occupation out, with nothing left in its place.
    pub fn take(&mut self, booking: &BookingId, operation: u32) -> Option<Occupation> {
        let at = self.find(booking, operation)?;
        let gone = self.line.remove(at);
        self.unsettle(at);
        Some(gone)
    }

    /// Takes the tooling at an index out.
    pub(crate) fn remove_tooling(&mut self, at: usize) {
        self.line.remove(at);
        self.unsettle(at);
    }

    /// Changes when it is open.
    pub(crate) fn set_open(&mut self, open: Windows) {
        self.open = open;
        (0..self.line.len()).for_each(|at| self.unsettle(at));
    }

    /// Changes what the machine can do.
    pub(crate) fn refit(&mut self, machine: Arc<Machine>) {
        self.machine = machine;
        (0..self.line.len()).for_each(|at| self.unsettle(at));
    }

    fn unsettle(&mut self, at: usize) {
        if let Some(o) = self.line.get_mut(at).filter(|o| o.phase == Phase::Planned) {
            o.end = o.start;
        }
    }

    /// Takes a planned occupation out so that what follows can stay as it is: where the follower counts on
    /// its changeover, the changeover stays as tooling.
    pub fn vacate(&mut self, booking: &BookingId, operation: u32) -> Option<Occupation> {
        let at = self.find(booking, operation)?;
        let gone = self.line.remove(at);
        let follower_suffers = self.line.get(at).is_some_and(|next| {
            next.phase == Phase::Planned && self.finish(at, next).is_none_or(|(end, _)| end > next.end)
        });
        let room = at == 0 || self.line[at - 1].end <= gone.start;
        if follower_suffers && gone.phase == Phase::Planned && room {
            let tooling = Occupation { purpose: Use::Tooling, work_s: TICK_S, ..gone.clone() };
            if let Some((end, changeover_s)) = self.finish(at, &tooling) {
                self.line.insert(at, Occupation { end, changeover_s, ..tooling });
                self.unsettle(at + 1);
                return Some(gone);
            }
        }
        self.unsettle(at);
        Some(gone)
    }

    /// By the rule: end and changeover of `occupation` if it stood at index `at`.
    fn finish(&self, at: usize, occupation: &Occupation) -> Option<(i64, i64)> {
        let before = if at == 0 { self.family.as_deref() } else { Some(&*self.line[at - 1].family) };
        let changeover_s = self.machine.changeover_s(before, &occupation.family);
        let end =
            self.open.finish(occupation.start, changeover_s + occupation.work_s, occupation.splittable)?;
        Some((end, changeover_s))
    }

    /// Derives changeovers and ends of what is unsettled, and drops tooling that nothing needs. O(n) over
    /// numbers, and the rule for what has changed.
    pub fn settle(&mut self) -> Settled {
        self.drop_needless_tooling();
        let Settled { mut broken, mut changed } = Settled::default();
        let mut taken_until = i64::MIN;
        for (at, begun_next) in self.begun_next().into_iter().enumerate() {
            if self.line[at].phase == Phase::Planned {
                let o = &self.line[at];
                let start = o.start;
                let by_the_rule =
                    if o.is_settled() { Some((o.end, o.changeover_s)) } else { self.finish(at, o) };
                match by_the_rule {
                    _ if start % TICK_S != 0 => {
                        broken
                            .push(Broken { index: at, how: format!("start {start} is not a whole minute") });
                    }
                    _ if start < taken_until && !planted(Bug::OverlapUnchecked) => {
                        broken.push(Broken { index: at, how: "the machine is taken".into() });
                    }
                    None => {
                        broken.push(Broken { index: at, how: "the machine is not open long enough".into() });
                    }
                    Some((end, _)) if end > begun_next => {
                        broken.push(Broken { index: at, how: "other work has begun in its time".into() });
                    }
                    Some((end, changeover_s)) => {
                        let occupation = &mut self.line[at];
                        if (occupation.end, occupation.changeover_s) != (end, changeover_s) {
                            (occupation.end, occupation.changeover_s) = (end, changeover_s);
                            changed.extend(occupation.operation());
                        }
                    }
                }
            }
            taken_until = taken_until.max(self.line[at].end);
        }
        Settled { broken, changed }
    }

    /// For each index, when the next occupation after it that is not planned begins.
    fn begun_next(&self) -> Vec<i64> {
        let mut next = i64::MAX;
        let mut all = vec![next; self.line.len()];
        for (at, occupation) in self.line.iter().enumerate().rev() {
            all[at] = next;
            if occupation.phase != Phase::Planned {
                next = occupation.start;
            }
        }
        all
    }

    /// Tooling goes where nothing planned follows it, or what does ends the same without it: so nobody's
    /// times are other than whoever placed it reckoned.
    fn drop_needless_tooling(&mut self) {
        let mut at = 0;
        while at < self.line.len() {
            if self.line[at].purpose != Use::Tooling || self.line[at].phase != Phase::Planned {
                at += 1;
                continue;
            }
            let end = |station: &Station, at: usize| {
                let next = station.line.get(at).filter(|next| next.phase == Phase::Planned)?;
                station.finish(at, next).map(|(end, _)| end)
            };
            let with = end(self, at + 1);
            let tooling = self.line.remove(at);
            let without = end(self, at);
            if with.is_some() && without != with {
                self.line.insert(at, tooling);
                at += 1;
            } else {
                self.unsettle(at);
            }
        }
    }

    /// Forgets what is over by `now` and no changeover counts on; the machine stays set up as the last of
    /// it left it. Work in hand is over, too, once its time is up and other work was begun after it: its
    /// end was never reported. What planned work overlaps stays until that has lost its place.
    pub fn prune(&mut self, now: i64) {
        let mut at = 0;
        // What starts later is not over.
        while self.line.get(at).is_some_and(|o| o.start <= now) {
            let begun_after = || self.line[at + 1..].iter().any(|o| o.phase != Phase::Planned);
            let over = self.line[at].end <= now
                && match self.line[at].phase {
                    Phase::Done => true,
                    Phase::Planned => self.line[at].purpose == Use::Tooling && self.line[at].is_settled(),
                    Phase::Running => begun_after(),
                };
            let window = self.line[at].window();
            let overlapped = || {
                let mut planned = self.line.iter().enumerate().filter(|(_, o)| o.phase == Phase::Planned);
                planned.any(|(k, o)| k != at && o.window().overlaps(&window))
            };
            let counted_on = at > 0 && self.line.get(at + 1).is_none_or(|next| next.phase == Phase::Planned);
            if !over || counted_on || overlapped() {
                at += 1;
                continue;
            }
            let gone = self.line.remove(at);
            if at == 0 {
                self.family = Some(gone.family);
            }
        }
    }

    /// A planned occupation of `work_s` from `start` on; its end is not known before [`Station::settle`].
    pub fn planned(
        booking: &BookingId,
        operation: u32,
        family: &str,
        start: i64,
        work_s: i64,
        splittable: bool,
    ) -> Occupation {
        Occupation {
            start,
            end: start,
            family: family.into(),
            purpose: Use::Work { booking: *booking, operation },
            changeover_s: 0,
            work_s,
            splittable,
            phase: Phase::Planned,
        }
    }

    /// Open time and thereof occupied, from `now` on, seconds.
    pub fn load(&self, now: i64) -> (i64, i64) {
        let open = self.open.between(now, i64::MAX).map(|w| w.length()).sum();
        let booked = self
            .line
            .iter()
            .flat_map(|o| self.open.between(o.start.max(now), o.end))
            .map(|w| w.length())
            .sum();
        (open, booked)
    }

    /// Where work that is reported to begin at `start` would end: by the rule, or straight on where the
    /// plant works outside its offer.
    pub fn reported_end(&self, start: i64, occupation_s: i64, splittable: bool) -> i64 {
        self.open.finish(start, occupation_s, splittable).unwrap_or_else(|| ceil_tick(start + occupation_s))
    }
}
