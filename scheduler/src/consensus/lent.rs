//! A stream that is given away, and taken back.
//!
//! A connection keeps the requests of a call, and asks them for more, for some time after the call is over. openraft's
//! next stream to the same peer draws on the same source: what the former still takes is lost. So the requests are
//! lent, and whoever makes the call takes them back when it ends.

use futures::{Stream, StreamExt as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Takes the stream back when it is dropped.
pub(super) struct Lender<S>(Arc<Mutex<Loan<S>>>);

/// The stream, for whoever has it; it ends when it is taken back.
pub(super) struct Lent<S>(Arc<Mutex<Loan<S>>>);

struct Loan<S> {
    /// None once it is taken back.
    stream: Option<S>,
    /// Who waits for its next item, and has to learn that there is none.
    waiting: Option<Waker>,
}

pub(super) fn lend<S>(stream: S) -> (Lender<S>, Lent<S>) {
    let loan = Arc::new(Mutex::new(Loan { stream: Some(stream), waiting: None }));
    (Lender(loan.clone()), Lent(loan))
}

impl<S> Drop for Lender<S> {
    fn drop(&mut self) {
        let (stream, waiting) = {
            let mut loan = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            (loan.stream.take(), loan.waiting.take())
        };
        drop(stream);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl<S: Stream + Unpin> Stream for Lent<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let mut loan = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stream) = &mut loan.stream else { return Poll::Ready(None) };
        let next = stream.poll_next_unpin(cx);
        loan.waiting = next.is_pending().then(|| cx.waker().clone());
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    #[tokio::test]
    async fn what_comes_after_the_call_stays_for_the_next() {
        let (sender, source) = mpsc::channel(2);
        let source = Arc::new(tokio::sync::Mutex::new(source));
        let draw = |source: Arc<tokio::sync::Mutex<mpsc::Receiver<u32>>>| {
            let next = |source: Arc<tokio::sync::Mutex<mpsc::Receiver<u32>>>| async {
                let next = source.lock().await.recv().await?;
                Some((next, source))
            };
            Box::pin(futures::stream::unfold(source, next))
        };
        let (lender, mut lent) = lend(draw(source.clone()));
        sender.send(1).await.unwrap();
        assert_eq!(lent.next().await, Some(1));
        // The connection waits for more, and holds the source's lock, when the call ends.
        let connection = tokio::spawn(async move { lent.next().await });
        tokio::task::yield_now().await;
        drop(lender);
        sender.send(2).await.unwrap();
        let next = tokio::time::timeout(Duration::from_secs(10), draw(source).next()).await;
        assert_eq!(next.unwrap(), Some(2));
        assert_eq!(connection.await.unwrap(), None);
    }

    #[tokio::test]
    async fn whoever_waits_learns_that_it_is_taken_back() {
        let (_sender, source) = mpsc::channel::<u32>(1);
        let (lender, mut lent) = lend(ReceiverStream::new(source));
        let connection = tokio::spawn(async move { lent.next().await });
        tokio::task::yield_now().await;
        drop(lender);
        let ended = tokio::time::timeout(Duration::from_secs(10), connection).await;
        assert_eq!(ended.unwrap().unwrap(), None);
    }
}
