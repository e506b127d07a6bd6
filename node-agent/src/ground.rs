//! What an agent stands on: threads, sockets and the system's chance, or a simulation's, where everything happens on
//! one thread, and a seed gives the same run every time.

use crate::chance::Chance;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use tonic::transport::{Channel, Endpoint, Error};

/// Dials an endpoint some other way than over the system's sockets.
pub type Dial =
    Arc<dyn Fn(Endpoint) -> Pin<Box<dyn Future<Output = Result<Channel, Error>> + Send>> + Send + Sync>;

/// See the module.
#[derive(Clone, Default)]
pub enum Ground {
    /// The machine that it runs on.
    #[default]
    Machine,
    /// A simulation.
    Simulation {
        /// Of all that is drawn.
        seed: u64,
        /// The way to the coordinators.
        dial: Dial,
    },
}

impl std::fmt::Debug for Ground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ground::Machine => f.write_str("Machine"),
            Ground::Simulation { seed, .. } => write!(f, "Simulation({seed})"),
        }
    }
}

impl Ground {
    /// Whether files are written on threads of their own, so that they keep nobody waiting.
    pub(crate) fn has_threads(&self) -> bool {
        matches!(self, Ground::Machine)
    }

    /// For jitter.
    pub(crate) fn chance(&self) -> Chance {
        match self {
            Ground::Machine => Chance::from_system(),
            Ground::Simulation { seed, .. } => Chance::from_seed(*seed),
        }
    }

    /// A random identity other than a former one, 128 bits in hexadecimal.
    pub(crate) fn new_id(&self, former: &str) -> String {
        let bytes = match self {
            Ground::Machine => system_id(),
            Ground::Simulation { seed, .. } => {
                let mut chance = Chance::from_names(*seed, &["id", former]);
                (u128::from(chance.next()) << 64 | u128::from(chance.next())).to_le_bytes()
            }
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Runs what waits for a disk where it disturbs nobody.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Ground::Machine => tokio::task::spawn_blocking(work).await.map_err(io::Error::other),
            Ground::Simulation { .. } => Ok(work()),
        }
    }

    /// Connects.
    pub(crate) async fn connect(&self, endpoint: Endpoint) -> Result<Channel, Error> {
        match self {
            Ground::Machine => endpoint.connect().await,
            Ground::Simulation { dial, .. } => dial(endpoint).await,
        }
    }
}

fn system_id() -> [u8; 16] {
    let mut bytes = [0_u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // Without a source of randomness the time and the process still tell two outboxes apart.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seed = now.as_nanos() ^ (u128::from(std::process::id()) << 96);
        bytes = seed.to_le_bytes();
    }
    bytes
}
