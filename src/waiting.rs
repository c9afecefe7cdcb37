//! Waiting beside a connection's traffic, at no cost while nothing happens.
//!
//! A connection's task is woken for every piece of a request. What it also waits for (a stop, a cut, a deadline)
//! hardly ever comes, and looking at it each time was a tenth of what Relais does for a request.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// A future that is polled when it was woken itself, and not whenever its task was.
#[derive(Debug)]
pub(crate) struct Seldom<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    /// The bell, as the future sees it.
    waker: Waker,
    /// Whom the bell wakes.
    task: Option<Waker>,
}

#[derive(Debug)]
struct Bell {
    has_rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl<F: Future> Seldom<F> {
    pub(crate) fn new(future: F) -> Self {
        let bell = Arc::new(Bell {
            // The first look is due unasked.
            has_rung: AtomicBool::new(true),
            task: Mutex::new(None),
        });
        Self {
            future: Box::pin(future),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
            task: None,
        }
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if !(this.task.as_ref()).is_some_and(|task| task.will_wake(cx.waker())) {
            this.task = Some(cx.waker().clone());
            this.bell.wakes(cx.waker().clone());
        }
        // After the bell knows whom to wake: a ring is either seen here or wakes this task.
        if !this.bell.has_rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        this.bell.has_rung.store(false, Ordering::Release);
        this.future
            .as_mut()
            .poll(&mut Context::from_waker(&this.waker))
    }
}

impl Bell {
    fn wakes(&self, task: Waker) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let task = task.clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// A timer for one deadline after the other. Setting and dropping one for each request costs two visits to the
/// runtime's wheel; this one stays set, and learns only when it goes off how much longer there is to wait.
#[derive(Debug)]
pub(crate) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    /// A timer of this runtime.
    pub(crate) fn at(deadline: Instant) -> Self {
        Self(Box::pin(tokio::time::sleep_until(deadline.into())))
    }

    /// Whether a deadline has passed; if not, the task is woken then, or somewhat before.
    pub(crate) fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if self.0.deadline().into_std() > deadline {
            self.0.as_mut().reset(deadline.into());
        }
        loop {
            ready!(self.0.as_mut().poll(cx));
            if self.0.deadline().into_std() >= deadline {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline.into());
        }
    }
}

/// The one timer behind all deadlines of a connection from an application, of which there is one at a time: hyper
/// asks for a timer for each head and drops it when the head is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct OneAlarm(Arc<Mutex<Option<Alarm>>>);

/// A deadline of a connection.
#[derive(Debug)]
struct Deadline {
    at: Instant,
    alarm: Arc<Mutex<Option<Alarm>>>,
}

impl hyper::rt::Timer for OneAlarm {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Deadline {
            at: deadline,
            alarm: Arc::clone(&self.0),
        })
    }
}

impl hyper::rt::Sleep for Deadline {}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        let alarm = alarm.get_or_insert_with(|| Alarm::at(self.at));
        alarm.poll_until(cx, self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::watch;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn what_seldom_happens_is_looked_at_when_it_does_and_not_before() {
        let (say, mut said) = watch::channel(false);
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looks);
        let mut waits = Box::pin(async move {
            let _ = said.wait_for(|said| *said).await;
        });
        let mut seldom = Seldom::new(poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::SeqCst);
            waits.as_mut().poll(cx)
        }));
        // Woken a hundred times for another reason.
        for _ in 0..100 {
            tokio::select! {
                biased;
                () = &mut seldom => panic!("it has not been said"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(looks.load(Ordering::SeqCst), 1);
        let saying = async {
            say.send_replace(true);
            pending::<()>().await
        };
        let heard = async {
            tokio::select! {
                () = &mut seldom => {}
                () = saying => {}
            }
        };
        tokio::time::timeout(SOON, heard).await.unwrap();
    }

    #[tokio::test]
    async fn it_is_heard_in_whichever_task_waits_for_it() {
        let (say, mut said) = watch::channel(false);
        let mut seldom = Seldom::new(async move {
            let _ = said.wait_for(|said| *said).await;
        });
        assert!(poll_fn(|cx| Poll::Ready(pin!(&mut seldom).poll(cx).is_pending())).await);
        let moved = tokio::spawn(seldom);
        say.send_replace(true);
        tokio::time::timeout(SOON, moved).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_alarm_that_was_set_for_earlier_or_later_goes_off_at_the_deadline() {
        let begun = Instant::now();
        let mut alarm = Alarm::at(begun + Duration::from_millis(10));
        for millis in [50, 51, 80, 10] {
            let deadline = begun + Duration::from_millis(millis);
            poll_fn(|cx| alarm.poll_until(cx, deadline)).await;
            assert!(Instant::now() >= deadline);
        }
        // One that is nearer than what it was set for.
        let far = Instant::now() + Duration::from_secs(3600);
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll_until(cx, far).is_pending())).await);
        let deadline = Instant::now() + Duration::from_millis(10);
        let near = poll_fn(|cx| alarm.poll_until(cx, deadline));
        tokio::time::timeout(SOON, near).await.unwrap();
    }

    #[tokio::test]
    async fn deadlines_of_a_connection_share_a_timer_and_each_is_kept() {
        use hyper::rt::Timer;
        let timer = OneAlarm::default();
        let mut first = timer.sleep(Duration::from_secs(3600));
        assert!(poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx).is_pending())).await);
        drop(first);
        let begun = Instant::now();
        let next = timer.sleep(Duration::from_millis(20));
        tokio::time::timeout(SOON, next).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(20));
    }
}
