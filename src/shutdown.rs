//! Signals: the first SIGINT or SIGTERM asks the gateway to finish and stop, the second does not ask; SIGHUP asks it to
//! read the configuration and what it names again.

use std::thread;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The exit code of a gateway that was told twice: 128 and the number of SIGINT, as shells have it.
const TOLD_TWICE: i32 = 130;

/// What signals ask for.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Turns true when the gateway is to stop.
    pub stop: watch::Receiver<bool>,
    /// Changes when the configuration and what it names are to be read again.
    pub reload: watch::Receiver<()>,
}

/// Watches for signals on a thread of its own.
///
/// # Errors
/// When signals cannot be watched.
pub fn on_signals() -> anyhow::Result<Signals> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (stop, stopped) = watch::channel(false);
    let (reload, reloads) = watch::channel(());
    let (mut interrupt, mut terminate, mut hangup) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hangup.recv() => {
                            reload.send_replace(());
                            continue;
                        }
                    }
                    if stop.send_replace(true) {
                        #[expect(clippy::exit, reason = "the operator asked twice, and means now")]
                        std::process::exit(TOLD_TWICE);
                    }
                }
            });
        })
        .context("signals cannot be watched")?;
    Ok(Signals {
        stop: stopped,
        reload: reloads,
    })
}
