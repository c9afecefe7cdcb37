//! What runs an HTTP/2 connection, and hears what the service allows on it.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::sync::watch;

use super::cut;

/// How long a connection that nobody can use any more may take to say goodbye. A service that has stopped reading
/// would take for ever, and occupy the connection's place in the pool meanwhile.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// Runs what drives a connection, until shortly after nobody can use the connection any more.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    in_use: watch::Receiver<()>,
    cut_off: watch::Receiver<bool>,
    pub(super) news: Arc<News>,
}

/// Whether a service has said how many streams it allows. hyper reads frames in one task and knows the number in
/// another, which it wakes only if a stream waits to be opened; none does here.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The other task's. It is the same at each poll.
    pub(super) reader: OnceLock<Waker>,
    pub(super) has_come: AtomicBool,
}

impl News {
    /// A task of the connection has done something: perhaps it has read the frame.
    fn may_have_come(&self) {
        if !self.has_come.load(Ordering::Relaxed)
            && let Some(reader) = self.reader.get()
        {
            reader.wake_by_ref();
        }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Driver {
    fn execute(&self, future: F) {
        let news = Arc::clone(&self.news);
        self.run(future, move || news.may_have_come());
    }
}

impl Driver {
    pub(super) fn new(cut_off: watch::Receiver<bool>) -> (watch::Sender<()>, Self) {
        let (sender, in_use) = watch::channel(());
        let driver = Self {
            in_use,
            cut_off,
            news: Arc::default(),
        };
        (sender, driver)
    }

    /// Runs it, and `after` each time that it has done something and is not at its end.
    pub(super) fn run(
        &self,
        future: impl Future<Output: Send> + Send + 'static,
        mut after: impl FnMut() + Send + 'static,
    ) {
        let (mut in_use, cut_off) = (self.in_use.clone(), self.cut_off.clone());
        tokio::spawn(async move {
            let out_of_use = async {
                // Nothing is ever sent: an error means that the sender went with the connection's last user.
                while in_use.changed().await.is_ok() {}
                tokio::time::sleep(CLOSES_WITHIN).await;
            };
            let after = poll_fn(|_| {
                after();
                Poll::<()>::Pending
            });
            tokio::select! {
                biased;
                _ = future => {}
                () = after => {}
                () = out_of_use => {}
                () = cut(cut_off) => {}
            }
        });
    }
}
