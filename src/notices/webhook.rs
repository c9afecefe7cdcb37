//! Posts notices, again and again until the other side has taken them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri};
use rustls::ClientConfig;
use tokio::time::timeout;

use super::{Notice, Notices};
use crate::config;
use crate::fetch;
use crate::metrics::Metrics;
use crate::outbound::trust::Anchors;

/// How long one post may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer that is read, in bytes. Nothing in it is used.
const ANSWER: usize = 1 << 20;

/// The pause after a first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// When a notice is given up, counted from its first failure: after a day somebody has read the log, or nobody will.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The same for all attempts at one notice (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Where notices are posted.
#[derive(Debug)]
pub struct Webhook {
    config: config::Notices,
    tls: Option<Arc<ClientConfig>>,
}

/// Why a notice was not taken.
enum Failure {
    /// Trying again may help.
    Again(String),
    /// The same notice would be refused again.
    Refused(StatusCode),
}

impl Webhook {
    /// Prepares to post. Nothing if there are no anchors for whom to believe there.
    pub fn new(config: config::Notices, anchors: &Anchors) -> Option<Self> {
        let in_clear = config.webhook.scheme() == Some(&Scheme::HTTP);
        let tls = match in_clear {
            true => None,
            false => Some(fetch::tls_client(anchors.get(&config.trust)?)),
        };
        Some(Self { config, tls })
    }

    pub(super) fn address(&self) -> &Uri {
        &self.config.webhook
    }

    async fn post(&self, notice: &Notice) -> Result<(), Failure> {
        let body = serde_json::to_vec(notice).expect("a notice has only texts and numbers");
        let key = HeaderValue::from_str(&notice.id).expect("an id is made of ASCII");
        let mut request = Request::post(&self.config.webhook)
            .header(CONTENT_TYPE, "application/json")
            .header(IDEMPOTENCY_KEY, key)
            .body(Bytes::from(body))
            .expect("the URL was one in the configuration");
        for (name, value) in &self.config.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let answer = fetch::exchange(request, self.tls.as_ref(), TIMEOUT, ANSWER).await;
        let status = answer
            .map_err(|error| Failure::Again(error.to_string()))?
            .status();
        if status.is_success() {
            return Ok(());
        }
        let may_change = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
        if status.is_client_error() && !may_change.contains(&status) {
            return Err(Failure::Refused(status));
        }
        Err(Failure::Again(format!("it answers {status}")))
    }
}

/// Posts what there is to tell, one notice after the other, for as long as it is polled.
pub async fn deliver(notices: Arc<Notices>, metrics: Arc<Metrics>) {
    let mut pause = FIRST_PAUSE;
    let mut last = String::new();
    loop {
        let (webhook, next) = (notices.webhook.load_full(), notices.after(&last));
        let (Some(webhook), Some((key, notice))) = (webhook, next) else {
            notices.arrived.notified().await;
            continue;
        };
        match webhook.post(&notice).await {
            Ok(()) => {
                pause = FIRST_PAUSE;
                metrics.notice("delivered");
                notices.done(&key, &notice.id);
            }
            Err(Failure::Refused(status)) => {
                tracing::warn!(%status, id = notice.id, "the webhook refuses a notice");
                metrics.notice("refused");
                notices.done(&key, &notice.id);
            }
            Err(Failure::Again(reason)) => {
                tracing::warn!(reason, id = notice.id, "the webhook takes no notice now");
                metrics.notice("failed");
                if notices.failed(&key, &notice.id, GIVEN_UP_AFTER) {
                    tracing::warn!(
                        id = notice.id,
                        "a notice was not taken for a day and is given up"
                    );
                    metrics.notice("given_up");
                }
                pause = match timeout(pause, notices.replaced.notified()).await {
                    // Another webhook need not fail as this one does.
                    Ok(()) => FIRST_PAUSE,
                    Err(_) => LONGEST_PAUSE.min(2 * pause),
                };
            }
        }
        last = key;
    }
}
