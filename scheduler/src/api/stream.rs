//! Server streams: a task writes, the client reads; a client that reads too slowly is dropped with a word.

use super::answer::{failed, reasons};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Code, Status};

/// Messages that wait for a slow reader.
pub const BACKLOG_MAX: usize = 64;
/// How long the writer waits for a slow reader before it drops it.
pub const SLOW_READER: Duration = Duration::from_secs(10);

/// A stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The writing end.
pub struct Writer<T> {
    to: mpsc::Sender<Result<T, Status>>,
}

/// The reader has gone, or was dropped.
pub struct Gone;

/// A stream and its writing end.
pub fn channel<T: Send + 'static>() -> (Writer<T>, Answers<T>) {
    let (to, from) = mpsc::channel(BACKLOG_MAX);
    (Writer { to }, Box::pin(ReceiverStream::new(from)))
}

impl<T> Writer<T> {
    /// Sends a message; `revision` is the last one that the reader has if it is dropped here.
    pub async fn send(&self, message: T, revision: u64) -> Result<(), Gone> {
        match self.to.send_timeout(Ok(message), SLOW_READER).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Gone),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                let status = failed(
                    Code::ResourceExhausted,
                    reasons::WATCHER_TOO_SLOW,
                    "the reader is too slow; resume from the last revision",
                    &[("last_revision", revision.to_string())],
                );
                self.end(status).await;
                Err(Gone)
            }
        }
    }

    /// Ends the stream with a status.
    pub async fn end(&self, status: Status) {
        let _ = self.to.send_timeout(Err(status), SLOW_READER).await;
    }

    /// Waits until the reader has gone.
    pub async fn closed(&self) {
        self.to.closed().await;
    }
}
