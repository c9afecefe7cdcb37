//! What systemd is told of the gateway (`Type=notify-reload`). Without `NOTIFY_SOCKET`, nobody is told anything.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, watch};

use super::App;

/// How late the text that `systemctl status` shows may be, where no watchdog asks more often.
const STATUS_LOOKED_AT_EVERY: Duration = Duration::from_secs(5);

/// Whether workers do their work.
#[derive(Debug)]
pub(super) struct Pulse {
    rounds: watch::Sender<()>,
    beats: mpsc::Receiver<()>,
    workers: usize,
}

/// A worker's part of the pulse.
#[derive(Clone, Debug)]
pub(super) struct Heart {
    rounds: watch::Receiver<()>,
    beats: mpsc::Sender<()>,
}

impl Pulse {
    /// One for all workers; each has a clone of the heart, and beats once to begin with.
    pub(super) fn new(workers: usize) -> (Self, Heart) {
        let (rounds, asked) = watch::channel(());
        let (beat, beats) = mpsc::channel(workers);
        let pulse = Self {
            rounds,
            beats,
            workers,
        };
        let heart = Heart {
            rounds: asked,
            beats: beat,
        };
        (pulse, heart)
    }

    /// Waits until each worker has answered; for ever if one of them does not.
    pub(super) async fn felt(&mut self) {
        for _ in 0..self.workers {
            let _ = self.beats.recv().await;
        }
    }

    async fn taken(&mut self) {
        self.rounds.send_replace(());
        self.felt().await;
    }
}

impl Heart {
    /// Beats whenever it is asked to.
    pub(super) async fn beat(mut self) {
        while self.beats.send(()).await.is_ok() && self.rounds.changed().await.is_ok() {}
    }
}

/// Tells that the gateway is ready, then how it is: all workers must answer for the watchdog to be told anything.
pub(super) async fn follow(app: Arc<App>, mut pulse: Pulse) {
    app.tell_ready();
    let watchdog = sd_notify::watchdog_enabled();
    // Twice as often as systemd wants to hear of it, as sd_watchdog_enabled(3) recommends.
    let every = watchdog.map_or(STATUS_LOOKED_AT_EVERY, |limit| limit / 2);
    let mut tick = tokio::time::interval(every);
    let mut told = app.status();
    loop {
        tick.tick().await;
        if watchdog.is_some() {
            pulse.taken().await;
            notify(&[NotifyState::Watchdog]);
        }
        let status = app.status();
        if status != told && !app.is_stopping() {
            notify(&[NotifyState::Status(&status)]);
            told = status;
        }
    }
}

impl App {
    /// Tells that requests are served with what is loaded now.
    pub(super) fn tell_ready(&self) {
        // systemd would not understand why a gateway that stops is ready.
        if !self.is_stopping() {
            notify(&[NotifyState::Ready, NotifyState::Status(&self.status())]);
        }
    }

    fn status(&self) -> String {
        let count =
            |many: usize, what| format!("{many} {what}{}", if many == 1 { "" } else { "s" });
        let table = self.gateway.table.load();
        format!(
            "serving {}, {}",
            count(table.generations().len(), "certificate"),
            count(table.services().len(), "service")
        )
    }
}

/// Tells that a reload has begun, and when: systemd tells by the time whether it is the one that it asked for.
pub(super) fn tell_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "systemd is not told of the reload"),
    }
}

/// Tells that a stop has begun.
pub(super) fn tell_stopping() {
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping: requests in flight finish"),
    ]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be told how the gateway is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_pulse_is_felt_only_if_every_worker_answers() {
        let (mut pulse, heart) = Pulse::new(2);
        let well = tokio::spawn(heart.clone().beat());
        let hanging = tokio::spawn(heart.beat());
        pulse.felt().await;
        pulse.taken().await;

        hanging.abort();
        let _ = hanging.await;
        let is_felt = tokio::select! {
            biased;
            () = pulse.taken() => true,
            // The other one has time enough to answer, and to be asked again.
            () = async { for _ in 0..16 { tokio::task::yield_now().await } } => false,
        };
        assert!(!is_felt, "one worker cannot answer for two");
        well.abort();
    }
}
