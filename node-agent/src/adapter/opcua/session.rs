//! A session with a server: opened with a choice of security, pumped by a task of its own, closed always.
//!
//! The pump polls the library's event loop, and passes on what matters, in order, over one channel: the
//! values of each publish response, that a response came, and what becomes of the line. So values of one
//! response are taken in together, and a response that never comes is noticed.
//!
//! A line that breaks is given a few attempts to come back to the same session, because a server that
//! allows one session only would refuse another until the old one has timed out, and because the server
//! keeps what happens meanwhile. A new session within these attempts is as good as none: the server has
//! restarted, and nothing that was found is to be relied on.

use super::pki::Pki;
use super::{Identity, Security, Server, Trouble};
use futures::StreamExt;
use opcua_client::{
    Client, ClientBuilder, IdentityToken, MonitoredItemMap, OnSubscriptionNotificationCore, Session,
    SessionActivity, SessionConnectMode, SessionPollResult, SubscriptionActivity,
};
use opcua_crypto::SecurityPolicy;
use opcua_types::{
    DataChangeNotification, DataValue, EndpointDescription, MessageSecurityMode, MonitoredItemCreateRequest,
    MonitoringMode, MonitoringParameters, NotificationMessage, ReadValueId, StatusChangeNotification,
    StatusCode, TimestampsToReturn, UserTokenType,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A connection must stand, and a request be answered, within this.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A server that does not answer has no more than this to close a session.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// How long a server is asked to keep a session whose line is cut; one that allows a single session
/// refuses the next for so long.
const SESSION_KEPT: Duration = Duration::from_secs(20);
/// Attempts to come back to a session, and the delays between them.
const COME_BACK: (i32, Duration, Duration) = (4, Duration::from_millis(250), Duration::from_secs(2));
/// A sign of life at least this often, also where nothing changes.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// Whoever hears nothing for so many signs of life is cut off.
const SIGNS_MISSED: u32 = 3;
/// Values of one variable that the server keeps between two responses.
const QUEUE: u32 = 100;
/// Responses that wait to be taken in.
const WAITING_MAX: usize = 1_024;
/// Monitored items asked for at once.
const ITEMS_AT_ONCE: usize = 500;
/// Largest message, array and string that are accepted.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
const ARRAY_MAX: usize = 100_000;
const STRING_BYTES_MAX: usize = 1 << 20;

/// What the pump passes on.
#[derive(Debug)]
pub enum News {
    /// The values of a publish response, by the handles that were asked for.
    Values(Vec<(u32, DataValue)>),
    /// A publish response came; it may have held no value.
    Published,
    /// The line is back, to the same session.
    Back,
    /// The session is over.
    Over(String),
}

/// An open session. Call [`Open::close`]: a session that is dropped is kept by the server for a while.
pub struct Open {
    /// For requests.
    pub session: Arc<Session>,
    news: mpsc::Receiver<News>,
    sending: mpsc::Sender<News>,
    overrun: Arc<AtomicBool>,
    pump: JoinHandle<()>,
}

impl Open {
    /// Opens a session.
    pub async fn connect(server: &Server, pki: &Pki) -> Result<Self, Trouble> {
        let mut client = client(server, pki)?;
        let offered =
            tokio::time::timeout(ANSWER_MAX, client.get_server_endpoints_from_url(server.url.as_str()));
        let offered = offered.await.map_err(|_| Trouble::TooLate(ANSWER_MAX))??;
        let endpoint = choose(offered, server)?;
        let identity = match &server.identity {
            Identity::Anonymous => IdentityToken::Anonymous,
            Identity::User { name, password } => IdentityToken::new_user_name(name, password.as_str()),
        };
        let (session, events) = client.connect_to_endpoint_directly(endpoint, identity)?;
        let (sending, mut news) = mpsc::channel(WAITING_MAX);
        let overrun = Arc::new(AtomicBool::new(false));
        let pump = Pump { session: session.clone(), news: sending.clone(), overrun: overrun.clone() };
        let pump = tokio::spawn(pump.run(events.enter()));
        // The first news is that the line is there, or that it is not.
        match tokio::time::timeout(2 * ANSWER_MAX, news.recv()).await {
            Ok(Some(News::Back)) => Ok(Self { session, news, sending, overrun, pump }),
            Ok(Some(News::Over(why))) => Err(Trouble::Refused(why)),
            Ok(_) => Err(Trouble::Refused("the session ended at its beginning".to_owned())),
            Err(_) => {
                pump.abort();
                Err(Trouble::TooLate(2 * ANSWER_MAX))
            }
        }
    }

    /// Subscribes to variables. Says after what silence the line is to be given up, and which of the
    /// variables the server does not watch, and why not.
    pub async fn subscribe(
        &self,
        interval: Duration,
        wanted: Vec<(u32, ReadValueId)>,
    ) -> Result<(Duration, Vec<(u32, StatusCode)>), Trouble> {
        let alive = (SIGN_OF_LIFE.as_millis() / interval.as_millis().max(1)).max(1) as u32;
        let callback = Taken { news: self.sending.clone(), overrun: self.overrun.clone() };
        let subscription =
            self.session.create_subscription(interval, alive * 10, alive, 0, 0, true, callback).await?;
        let mut refused = Vec::new();
        for some in wanted.chunks(ITEMS_AT_ONCE) {
            let items = some.iter().map(|(handle, variable)| MonitoredItemCreateRequest {
                item_to_monitor: variable.clone(),
                monitoring_mode: MonitoringMode::Reporting,
                requested_parameters: MonitoringParameters {
                    client_handle: *handle,
                    sampling_interval: interval.as_secs_f64() * 1e3,
                    queue_size: QUEUE,
                    discard_oldest: true,
                    ..MonitoringParameters::default()
                },
            });
            let created =
                self.session.create_monitored_items(subscription, TimestampsToReturn::Both, items.collect());
            for ((handle, _), created) in some.iter().zip(created.await?) {
                if created.result.status_code.is_bad() {
                    refused.push((*handle, created.result.status_code));
                }
            }
        }
        let state = self.session.subscription_state().lock();
        let granted = state
            .get(subscription)
            .map(|granted| granted.publishing_interval() * granted.max_keep_alive_count());
        Ok((SIGNS_MISSED * granted.unwrap_or(SIGN_OF_LIFE).max(SIGN_OF_LIFE), refused))
    }

    /// The next thing that happens.
    pub async fn next(&mut self) -> News {
        self.news.recv().await.unwrap_or_else(|| News::Over("the session ended".to_owned()))
    }

    /// Closes the session, so that the server may take another.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(CLOSE_MAX, self.session.disconnect()).await;
        self.news.close();
        self.pump.abort();
    }
}

/// Takes in what publish responses hold.
struct Taken {
    news: mpsc::Sender<News>,
    overrun: Arc<AtomicBool>,
}

impl OnSubscriptionNotificationCore for Taken {
    fn on_subscription_notification(&mut self, message: NotificationMessage, _: MonitoredItemMap<'_>) {
        for data in message.notification_data.unwrap_or_default() {
            let news = if let Some(changes) = data.inner_as::<DataChangeNotification>() {
                let values = changes.monitored_items.iter().flatten();
                News::Values(values.map(|item| (item.client_handle, item.value.clone())).collect())
            } else if let Some(change) = data.inner_as::<StatusChangeNotification>() {
                News::Over(format!("the server ended the subscription: {}", change.status))
            } else {
                continue;
            };
            if self.news.try_send(news).is_err() {
                self.overrun.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Polls the library's event loop.
struct Pump {
    session: Arc<Session>,
    news: mpsc::Sender<News>,
    overrun: Arc<AtomicBool>,
}

impl Pump {
    /// Until the session is over.
    async fn run(self, events: impl futures::Stream<Item = Result<SessionPollResult, StatusCode>>) {
        futures::pin_mut!(events);
        let mut known = false;
        let why = loop {
            let event = events.next().await;
            if self.overrun.load(Ordering::Relaxed) {
                break "values came faster than they could be taken in".to_owned();
            }
            let news = match event {
                Some(Ok(SessionPollResult::Subscription(SubscriptionActivity::Publish))) => News::Published,
                Some(Ok(SessionPollResult::Subscription(SubscriptionActivity::FatalFailure(code)))) => {
                    break format!("the subscription failed: {code}");
                }
                Some(Ok(SessionPollResult::Reconnected(SessionConnectMode::NewSession(_)))) if known => {
                    break "the server knows the session no more: it was restarted".to_owned();
                }
                Some(Ok(SessionPollResult::Reconnected(_))) => {
                    known = true;
                    // The library does not publish by itself after a line came back.
                    self.session.trigger_publish_now();
                    News::Back
                }
                Some(Ok(SessionPollResult::ReconnectFailed(code))) if !known => break code.to_string(),
                Some(Ok(SessionPollResult::SessionActivity(SessionActivity::KeepAliveFailed(code)))) => {
                    tracing::debug!(%code, "an OPC UA server does not answer");
                    continue;
                }
                Some(Ok(_)) => continue,
                Some(Err(code)) => break code.to_string(),
                None => break "the session was closed".to_owned(),
            };
            // While this waits, nothing is read from the server, which keeps the rest.
            if self.news.send(news).await.is_err() {
                return;
            }
        };
        let _ = self.news.send(News::Over(why)).await;
    }
}

fn client(server: &Server, pki: &Pki) -> Result<Client, Trouble> {
    let (attempts, first, longest) = COME_BACK;
    let builder = ClientBuilder::new()
        .application_name("Millpool node agent")
        .application_uri(&pki.application_uri)
        .product_uri("urn:millpool:node-agent")
        .session_name("Millpool node agent")
        .pki_dir(&pki.dir)
        .certificate_path("own/cert.der")
        .private_key_path("private/private.pem")
        .trust_server_certs(false)
        .verify_server_certs(server.security != Security::Basic256Sha256 { pinned: true })
        .session_retry_limit(attempts)
        .session_retry_initial(first)
        .session_retry_max(longest)
        .session_timeout(SESSION_KEPT.as_millis() as u32)
        .channel_lifetime(server.channel_lifetime.as_millis() as u32)
        .keep_alive_interval(SIGN_OF_LIFE)
        .max_failed_keep_alive_count(u64::from(SIGNS_MISSED))
        .request_timeout(ANSWER_MAX)
        .publish_timeout(10 * SIGN_OF_LIFE)
        .min_publish_interval(Duration::from_millis(10))
        .recreate_subscriptions(false)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_array_length(ARRAY_MAX)
        .max_string_length(STRING_BYTES_MAX)
        .max_byte_string_length(STRING_BYTES_MAX);
    builder.client().map_err(|why| Trouble::Unusable(why.join("; ")))
}

fn policy(security: Security) -> (SecurityPolicy, MessageSecurityMode) {
    match security {
        Security::None => (SecurityPolicy::None, MessageSecurityMode::None),
        Security::Basic256Sha256 { .. } => {
            (SecurityPolicy::Basic256Sha256, MessageSecurityMode::SignAndEncrypt)
        }
    }
}

/// The first endpoint on offer that has the wanted security and takes the wanted identity. It is dialled
/// by the address in the config: servers announce names that are known to themselves alone.
fn choose(offered: Vec<EndpointDescription>, server: &Server) -> Result<EndpointDescription, Trouble> {
    let (policy, mode) = policy(server.security);
    let token = match server.identity {
        Identity::Anonymous => UserTokenType::Anonymous,
        Identity::User { .. } => UserTokenType::UserName,
    };
    let takes = |offer: &EndpointDescription| match &offer.user_identity_tokens {
        Some(tokens) => tokens.iter().any(|offered| offered.token_type == token),
        None => token == UserTokenType::Anonymous,
    };
    let fits = |offer: &&EndpointDescription| {
        offer.security_policy_uri.as_ref() == policy.to_uri() && offer.security_mode == mode && takes(offer)
    };
    let Some(chosen) = offered.iter().find(fits) else {
        let who = if token == UserTokenType::Anonymous { "nobody's name" } else { "a user's name" };
        return Err(Trouble::Endpoint {
            wanted: format!("{policy} {mode:?} with {who}"),
            there: list(&offered),
        });
    };
    Ok(EndpointDescription { endpoint_url: server.url.as_str().into(), ..chosen.clone() })
}

fn describe(endpoint: &EndpointDescription) -> String {
    let policy = endpoint.security_policy_uri.as_ref();
    let policy = policy.rsplit_once('#').map_or(policy, |(_, name)| name);
    format!("{policy} {:?}", endpoint.security_mode)
}

fn list(endpoints: &[EndpointDescription]) -> String {
    let each: Vec<_> = endpoints.iter().map(describe).collect();
    if each.is_empty() { "none".to_owned() } else { each.join(", ") }
}
