//! The second room: does the plant agree that its machine moves?
//!
//! A person agrees at the console, for one machine, for a limited time, and for one operation or whatever is asked. Or the
//! plant's member agrees from afar, for a session's operation, where the plant takes its word. Or a standing rule of the plant's agrees with some buyers
//! for ever ([`Rule`], in the agent's configuration). What a person said is not kept through a restart of the agent: whoever agreed is asked again.

use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// Longest that a person can agree for.
pub const CONSENT_MAX: Duration = Duration::from_secs(8 * 3600);
/// How long a consent stands where nothing else is said.
pub const CONSENT_DEFAULT: Duration = Duration::from_secs(600);

/// What a plant allows on one machine, by its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Buyers with whom the plant always agrees.
    pub standing: Vec<String>,
    /// Whether its member may agree, and let programs out, from afar: the coordinators alone know who asked.
    pub from_afar: bool,
    /// The folder from which the machine reads its programs, if the plant lets some be put there.
    pub programs: Option<PathBuf>,
}

/// A person agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// The machine.
    pub machine_id: String,
    /// `BOOKING/OPERATION`; whatever is asked, where none is named.
    pub job: Option<String>,
    /// Until then.
    pub until: Instant,
    /// Who.
    pub by: String,
}

/// Who has agreed.
#[derive(Clone, Debug, Default)]
pub struct Consents(Vec<Consent>);

impl Consents {
    /// A person agrees; what was said of the machine before no longer stands.
    pub fn give(&mut self, consent: Consent) {
        self.withdraw(&consent.machine_id);
        self.0.push(consent);
    }

    /// Nobody agrees any more. Says whether somebody had.
    pub fn withdraw(&mut self, machine_id: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|consent| consent.machine_id != machine_id);
        self.0.len() < before
    }

    /// Who agrees that a machine moves for a job, as its session's holder asks; if anybody does.
    pub fn find(
        &self,
        machine_id: &str,
        job: &str,
        holder: &str,
        rule: &Rule,
        now: Instant,
    ) -> Option<String> {
        let meant = |consent: &&Consent| {
            consent.machine_id == machine_id
                && now < consent.until
                && consent.job.as_ref().is_none_or(|own| own == job)
        };
        let stands = || rule.standing.iter().any(|own| own == holder);
        match self.0.iter().find(meant) {
            Some(consent) => Some(consent.by.clone()),
            None => stands().then(|| format!("standing rule for {holder}")),
        }
    }
}
