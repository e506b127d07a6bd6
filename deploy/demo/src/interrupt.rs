//! Breaking off: Ctrl-C, or a polite kill.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves on the next SIGTERM or SIGINT; never where they cannot be heard.
pub async fn interrupted() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
