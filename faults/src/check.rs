//! What must hold after every scenario, whatever the fault was.
//!
//! - Every acknowledged booking is there once, as it was promised, and its request repeated gives the same
//!   answer. What got no answer is settled by repeating it.
//! - The plan breaks no rule, as an independent check of the exported plan says.
//! - The nodes that run have equal hashes of the state, and none has panicked.

use crate::load::Book;
use millpool_cli::client::Client;
use millpool_demo::alliance::Alliance;
use millpool_demo::checks::{Fault, agreement, evidence, logs, plan, said};
use millpool_demo::cluster::Cluster;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// How long nodes may take to come to one revision once nobody writes.
const AGREE_WITHIN: Duration = Duration::from_secs(30);
/// Acknowledged requests that are repeated in the end.
const REPEATED_MAX: usize = 1000;

/// Something that must hold did not: what a scenario ends with, unlike one that could not be carried out.
#[derive(Debug)]
pub(crate) struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// The error of a scenario in which something did not hold.
pub(crate) fn broken(how: impl Into<String>) -> anyhow::Error {
    Broken(how.into()).into()
}

/// Everything that the checks came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Bookings that were acknowledged.
    pub(crate) acknowledged: usize,
    /// Bookings that were refused.
    pub(crate) refused: u64,
    /// Bookings that are there.
    pub(crate) bookings: usize,
    /// Requests that got no answer before they were repeated.
    pub(crate) in_doubt_at_first: usize,
    /// Acknowledged requests that were repeated.
    pub(crate) repeated: usize,
    /// What is not as it should be.
    pub(crate) faults: Vec<String>,
}

/// Who asks, and of what.
pub(crate) struct Witness<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) alliance: &'a Alliance,
    pub(crate) operator: &'a Client,
    pub(crate) buyers: &'a BTreeMap<String, Client>,
    pub(crate) book: &'a Book,
}

impl Witness<'_> {
    /// Every check.
    pub(crate) async fn judge(&self) -> anyhow::Result<Verdict> {
        let ledger = &self.book.ledger;
        let clients = |buyer: &str| self.buyers[buyer].clone();
        let in_doubt_at_first = ledger.doubts().len();
        let left = said::settle_doubts(&clients, ledger).await;
        let (mut faults, repeated) = said::repeat(&clients, ledger, REPEATED_MAX).await;
        if left > 0 {
            faults.push(Fault::new("every request is answered in the end", format!("{left} are in doubt")));
        }
        faults.extend(logs::judge(&self.cluster.logs())?);
        let mut verdict = self.look().await?;
        verdict.faults.extend(faults.iter().map(ToString::to_string));
        Ok(Verdict { in_doubt_at_first, repeated, ..verdict })
    }

    /// The checks that only look: bookings, plan and hashes.
    pub(crate) async fn look(&self) -> anyhow::Result<Verdict> {
        let ledger = &self.book.ledger;
        let evidence = evidence::gather(self.operator, self.alliance.blueprint.start_s).await;
        let evidence =
            evidence.map_err(|error| broken(format!("bookings and plan cannot be read: {error}")))?;
        let mut faults = said::judge(ledger, &evidence.bookings);
        faults.extend(plan::judge(self.alliance, &evidence.policy, &evidence.plan, &evidence.bookings));
        if !evidence.at_one_revision {
            faults
                .push(Fault::new("the state comes to rest", "it changed at every look, with nobody at work"));
        }
        faults.extend(agreement::compare(self.cluster, AGREE_WITHIN).await.err());
        Ok(Verdict {
            acknowledged: ledger.told().len(),
            refused: self.book.refused(),
            bookings: evidence.bookings.len(),
            faults: faults.iter().map(ToString::to_string).collect(),
            ..Verdict::default()
        })
    }
}
