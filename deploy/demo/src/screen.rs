//! Progress: bars on a terminal, plain lines elsewhere.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// Without a terminal, the state of things is said this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where progress is shown.
pub(crate) struct Screen {
    began: Instant,
    terminal: Option<Bars>,
    last_line: Instant,
}

struct Bars {
    all: MultiProgress,
    orders: ProgressBar,
    plan: ProgressBar,
}

/// The state of things.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    /// Orders that have been placed, of how many.
    pub(crate) asked: u64,
    /// Orders that will be placed.
    pub(crate) orders: u64,
    /// Promised.
    pub(crate) promised: u64,
    /// Refused.
    pub(crate) refused: u64,
    /// The alliance's time.
    pub(crate) time: String,
    /// The plan in a few words.
    pub(crate) plan: String,
}

impl Screen {
    pub(crate) fn new(orders: u64) -> Self {
        let terminal = std::io::stdout().is_terminal().then(|| Bars::new(orders));
        let began = Instant::now();
        Self { began, terminal, last_line: began }
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A line that stays.
    pub(crate) fn say(&self, line: &str) {
        let line = format!("{:5.1} s  {line}", self.elapsed().as_secs_f64());
        match &self.terminal {
            Some(bars) => bars.all.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    /// The state of things, replaced by the next.
    pub(crate) fn show(&mut self, scene: &Scene) {
        let orders = format!("{} promised, {} refused", scene.promised, scene.refused);
        let plan = format!("{}  {}", scene.time, scene.plan);
        match &self.terminal {
            Some(bars) => {
                bars.orders.set_length(scene.orders.max(scene.asked));
                bars.orders.set_position(scene.asked);
                bars.orders.set_message(orders);
                bars.plan.set_message(plan);
            }
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                self.say(&format!("orders {}/{}: {orders}; {plan}", scene.asked, scene.orders));
            }
            None => {}
        }
    }

    /// Takes the bars away.
    pub(crate) fn clear(&mut self) {
        if let Some(bars) = self.terminal.take() {
            bars.orders.finish_and_clear();
            bars.plan.finish_and_clear();
        }
    }
}

impl Bars {
    fn new(orders: u64) -> Self {
        let all = MultiProgress::new();
        let style = |template: &str| {
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        let bar = ProgressBar::new(orders).with_style(style("  orders {bar:30} {pos}/{len}  {msg}"));
        let line = ProgressBar::new_spinner().with_style(style("  plan   {msg}"));
        let (orders, plan) = (all.add(bar), all.add(line));
        Self { all, orders, plan }
    }
}
