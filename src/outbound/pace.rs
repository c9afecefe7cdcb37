//! The pace of handshakes: one step of one of them at a time on each worker, and everybody else between two.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::{Notify, Semaphore};
use tokio::task::yield_now;

use crate::outbound::tls;

thread_local! {
    /// Held by whoever takes a step towards a service.
    static OUTBOUND: Arc<Semaphore> = Arc::new(Semaphore::new(1));
    /// The same towards an application: whoever can connect can have steps taken, and those to services do not queue
    /// behind them but take turns with them.
    static INBOUND: Arc<Semaphore> = Arc::new(Semaphore::new(1));
}

/// Makes this thread ready for handshakes. The first draw of random numbers in a process gathers entropy for longer
/// than a handshake takes, and would do so in the middle of one.
pub(crate) fn prepare() {
    // What fails here fails in each handshake too, which has somebody to tell.
    let _ = tls::provider().secure_random.fill(&mut [0; 32]);
}

/// Drives a handshake with a service, each step of which may occupy the thread for a millisecond: rustls signs and
/// verifies where it is polled. A thousand certificates that are used for the first time at once would otherwise keep a
/// worker's other requests waiting for as many steps as are ready; here whatever else is ready, timers and sockets
/// included, comes before the next step of anybody's.
///
/// What waits for the network is not held, so a distant service slows nobody's handshake.
pub(crate) async fn in_steps<F: Future>(work: F) -> F::Output {
    at(OUTBOUND.with(Arc::clone), work).await
}

/// The same for a handshake with an application.
pub(crate) async fn in_steps_inbound<F: Future>(work: F) -> F::Output {
    at(INBOUND.with(Arc::clone), work).await
}

async fn at<F: Future>(pace: Arc<Semaphore>, work: F) -> F::Output {
    let mut work = pin!(work);
    let due = Arc::new(Due::default());
    let waker = Waker::from(Arc::clone(&due));
    loop {
        let held = pace.acquire().await.expect("nobody closes it");
        let step = work.as_mut().poll(&mut Context::from_waker(&waker));
        // Held meanwhile: a runtime that yields polls its sockets and timers before it comes back.
        yield_now().await;
        drop(held);
        if let Poll::Ready(output) = step {
            return output;
        }
        due.0.notified().await;
    }
}

/// Tells that there is another step to take. The task's own waker would not do: what wakes a task to take its step must
/// not pass for news from the network, nor the other way round.
#[derive(Default)]
struct Due(Notify);

impl Wake for Due {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// Takes so many steps, each ready at once, and counts them.
    async fn steps(many: usize, taken: Arc<AtomicUsize>) {
        let mut left = many;
        poll_fn(move |cx| {
            taken.fetch_add(1, Ordering::Relaxed);
            left -= 1;
            if left == 0 {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    #[tokio::test]
    async fn between_two_steps_of_handshakes_the_worker_looks_at_everything_else() {
        let taken = Arc::new(AtomicUsize::new(0));
        let handshakes: Vec<_> = (0..50)
            .map(|_| tokio::spawn(in_steps(steps(3, Arc::clone(&taken)))))
            .collect();
        let mut most = 0;
        let mut seen = 0;
        while seen < 150 {
            // Comes back once the runtime has looked at sockets and timers.
            yield_now().await;
            let now = taken.load(Ordering::Relaxed);
            most = most.max(now - seen);
            seen = now;
        }
        assert_eq!(most, 1);
        for handshake in handshakes {
            handshake.await.unwrap();
        }
    }

    #[tokio::test]
    async fn handshakes_of_applications_do_not_keep_those_with_services_waiting() {
        let taken = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            tokio::spawn(in_steps_inbound(steps(100, Arc::clone(&taken))));
        }
        yield_now().await;
        in_steps(steps(3, Arc::default())).await;
        assert!(taken.load(Ordering::Relaxed) < 20);
    }

    #[tokio::test]
    async fn what_waits_for_the_network_keeps_nobody_from_a_step() {
        let (send, receive) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn(in_steps(receive));
        yield_now().await;
        let other = tokio::time::timeout(Duration::from_secs(10), in_steps(async { 1 })).await;
        assert_eq!(other.ok(), Some(1));
        send.send(2).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(2));
    }

    #[tokio::test]
    async fn a_handshake_that_is_given_up_holds_up_nobody() {
        let given_up = tokio::spawn(in_steps(std::future::pending::<()>()));
        yield_now().await;
        given_up.abort();
        let _ = given_up.await;
        let next = tokio::time::timeout(Duration::from_secs(10), in_steps(async {})).await;
        assert!(next.is_ok());
    }
}
