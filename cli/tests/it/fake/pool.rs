//! Whole runs of the command against the fake cluster, and what they leave behind.

use super::{Cluster, FakeNode, sample};
use expect_test::Expect;
use jiff::{Timestamp, tz::TimeZone};
use millpool_cli::connection::Environment;
use millpool_cli::written::Clock;
use millpool_cli::{Surroundings, run};
use millpool_proto::v1::*;
use serde_json::Value;

/// What a run left behind.
pub struct Ran {
    pub exit_code: u8,
    pub answers: String,
    pub notices: String,
}

impl Ran {
    pub fn json(&self) -> Value {
        assert_eq!(self.exit_code, 0, "{}", self.notices);
        serde_json::from_str(&self.answers).unwrap()
    }
}

/// A pool with one node to run commands against.
pub struct Pool {
    pub cluster: Cluster,
    pub node: FakeNode,
}

impl Pool {
    pub fn new() -> Self {
        let cluster = Cluster::new(sample::state());
        let node = cluster.start(1);
        Self { cluster, node }
    }

    pub async fn run(&self, words: &[&str]) -> Ran {
        let endpoints = format!("--endpoints={}", self.node.address);
        let mut all = vec!["millpool".to_owned()];
        all.extend(words.iter().map(ToString::to_string));
        all.push(endpoints.clone());
        let mut ran = bare(all).await;
        for text in [&mut ran.answers, &mut ran.notices] {
            *text = text.replace(&format!(" {endpoints}"), "").replace(&self.node.address, "node1:7400");
        }
        ran
    }

    /// Runs it and compares what people read.
    pub async fn shows(&self, words: &[&str], expected: Expect) {
        let ran = self.run(words).await;
        expected.assert_eq(&(ran.answers + &ran.notices));
    }

    pub fn with_booking(self, booking: Booking) -> Self {
        self.cluster.change(booking);
        self
    }
}

/// Runs the command at the sample's time, with nothing from this machine's environment.
pub async fn bare(words: Vec<String>) -> Ran {
    let (mut answers, mut notices) = (Vec::new(), Vec::new());
    let around = Surroundings {
        answers: &mut answers,
        notices: &mut notices,
        clock: Clock {
            now: Timestamp::from_second(sample::NOW_S).unwrap(),
            zone: TimeZone::get("Asia/Shanghai").unwrap(),
        },
        environment: Environment::default(),
        terminal: None,
    };
    let exit_code = run(words, around).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { exit_code, answers: text(answers), notices: text(notices) }
}
