//! The line to an MQTT broker, to read or to publish: how it is opened, what is subscribed to, and what a trouble of it
//! means.
//!
//! MQTT 5, because there the broker is told how large a message may be, and which messages are not wanted: a
//! message that was kept, or one's own. A session is never taken up again. What came while nobody listened
//! is old, and edge nodes tell all of it anew when they are asked.

use super::host::{NAMESPACE, REBIRTH};
use super::payload::{BOOLEAN, Content, Metric, PACKET_BYTES_MAX, Payload};
use crate::adapter::Identity;
use crate::outbox::OutboxError;
use rumqttc::{
    AsyncClient, ClientError, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions,
    Packet, PublishOptions, QoS, RetainForwardRule, SubscribeFilterInput, SubscribeReasonCode, Transport,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// A sign of life at least so often, s; a broker that does not answer one within this time is given up.
pub const KEEP_ALIVE_S: u16 = 4;
/// How long opening the line may take, subscriptions included.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Filters in one request.
const FILTERS_MAX: usize = 64;

/// A broker, and how it is spoken to. Machines behind equal ones share a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its host's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Certificates; plain text without.
    pub tls: Option<Tls>,
    /// As whom the agent appears.
    pub identity: Identity,
    /// The agent's name on the broker; of two connections with one name, the broker ends the older.
    pub client_id: String,
}

/// Certificates.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    /// Authorities that may have signed the broker's.
    pub ca_pem: Vec<u8>,
    /// The agent's own certificate and key.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity_pem.is_some()).finish_non_exhaustive()
    }
}

/// Why the line was given up.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The line broke, or there is no way to the broker.
    #[error("{0}")]
    Line(Box<ConnectionError>),
    /// The broker does not let the agent in.
    #[error("the broker refuses {who}: {why}")]
    Refused {
        /// As whom it came.
        who: String,
        /// The broker's reason.
        why: String,
    },
    /// The certificates do not fit.
    #[error("the certificates do not fit: {0}")]
    Certificate(String),
    /// The broker does not let the agent read a topic.
    #[error("the broker refuses the subscription to {filter}: {why}")]
    Subscription {
        /// What was asked for.
        filter: String,
        /// The broker's reason.
        why: String,
    },
    /// No answer.
    #[error("no answer within {0:?}")]
    TooLate(Duration),
    /// A request could not be made.
    #[error("{0}")]
    Request(Box<ClientError>),
    /// A mapping cannot be used.
    #[error("{0}")]
    Mapping(String),
    /// Events can be kept no more.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

impl Trouble {
    /// Whether somebody has to do something before another attempt can go better.
    pub fn is_slow(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Certificate(_) | Self::Subscription { .. })
    }
}

/// What a line is opened with.
pub struct Opening {
    /// What is subscribed to.
    pub filters: BTreeSet<String>,
    /// Messages that may wait until they are sent.
    pub unsent_max: usize,
    /// What the broker says when the line is cut.
    pub will: Option<LastWill>,
}

/// An open line.
pub struct Connection {
    /// Takes requests.
    pub client: AsyncClient,
    /// Tells what comes, while it is polled.
    pub events: EventLoop,
}

impl Broker {
    /// Its name in logs and meters.
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Opens a line and subscribes.
    pub async fn connect(&self, opening: Opening) -> Result<Connection, Trouble> {
        let Opening { filters, unsent_max, will } = opening;
        let requests_max = unsent_max + filters.len().div_ceil(FILTERS_MAX) + 1;
        let mut options = self.options();
        if let Some(will) = will {
            options.set_last_will(will);
        }
        let (client, events) = AsyncClient::builder(options).capacity(requests_max).build();
        let mut line = Connection { client, events };
        let opened = tokio::time::timeout(CONNECT_MAX, self.open(&mut line, &filters));
        opened.await.unwrap_or(Err(Trouble::TooLate(CONNECT_MAX)))?;
        Ok(line)
    }

    async fn open(&self, line: &mut Connection, filters: &BTreeSet<String>) -> Result<(), Trouble> {
        let mut events = async || line.events.poll().await.map_err(|error| self.explain(error));
        while !matches!(events().await?, Event::Incoming(Packet::ConnAck(_))) {}
        let filters: Vec<_> = filters.iter().collect();
        for filters in filters.chunks(FILTERS_MAX) {
            let wanted = filters.iter().map(|filter| wanted(filter));
            let requested = line.client.try_subscribe_many(wanted);
            requested.map_err(|error| Trouble::Request(Box::new(error)))?;
            let answer = loop {
                if let Event::Incoming(Packet::SubAck(answer)) = events().await? {
                    break answer;
                }
            };
            for (filter, code) in filters.iter().zip(&answer.return_codes) {
                if !matches!(code, SubscribeReasonCode::Success(_)) {
                    let why = format!("{code:?}");
                    return Err(Trouble::Subscription { filter: (*filter).clone(), why });
                }
            }
        }
        Ok(())
    }

    fn options(&self) -> MqttOptions {
        let mut options = MqttOptions::new(&self.client_id, (self.host.as_str(), self.port));
        options.set_keep_alive(KEEP_ALIVE_S);
        options.set_connect_timeout(CONNECT_MAX);
        options.set_max_packet_size(Some(PACKET_BYTES_MAX));
        if let Identity::User { name, password } = &self.identity {
            options.set_credentials(name, password.as_str().to_owned());
        }
        if let Some(tls) = &self.tls {
            options.set_transport(Transport::tls(tls.ca_pem.clone(), tls.identity_pem.clone(), None));
        }
        options
    }

    /// Says more of what went wrong, where somebody has to do something about it.
    pub fn explain(&self, error: ConnectionError) -> Trouble {
        let who = match &self.identity {
            Identity::Anonymous => "anybody without a name".to_owned(),
            Identity::User { name, .. } => format!("the user {name:?}"),
        };
        match error {
            ConnectionError::ConnectionRefused(
                code @ (ConnectReturnCode::BadUserNamePassword
                | ConnectReturnCode::NotAuthorized
                | ConnectReturnCode::Banned
                | ConnectReturnCode::ClientIdentifierNotValid
                | ConnectReturnCode::UnsupportedProtocolVersion
                | ConnectReturnCode::RefusedProtocolVersion),
            ) => Trouble::Refused { who, why: format!("{code:?}") },
            ConnectionError::Tls(error) if error.to_string().contains("ertificate") => {
                Trouble::Certificate(error.to_string())
            }
            error => Trouble::Line(Box::new(error)),
        }
    }
}

/// What is subscribed to under a filter: what others say from now on.
fn wanted(filter: &str) -> SubscribeFilterInput {
    SubscribeFilterInput::new(filter, QoS::AtLeastOnce)
        .no_local(true)
        .retain_forward_rule(RetainForwardRule::Never)
}

/// Asks the broker for a sign of life, by subscribing anew to what is subscribed to already. The library asks for one only
/// while nothing else is sent, and whatever is published without an acknowledgement tells nothing of the broker.
pub fn ask_life(client: &AsyncClient, filter: &str) -> Result<(), ClientError> {
    client.try_subscribe_many([wanted(filter)])
}

/// Asks an edge node to be born again: the one thing that is ever published of what is read.
pub fn ask_rebirth(client: &AsyncClient, group: &str, node: &str, now_ms: i64) -> Result<(), ClientError> {
    let mut rebirth = Metric::named(REBIRTH, BOOLEAN, Content::Boolean(true));
    rebirth.timestamp = u64::try_from(now_ms).ok();
    let payload = Payload { timestamp_ms: rebirth.timestamp, seq: None, metrics: vec![rebirth] };
    let topic = format!("{NAMESPACE}/{group}/NCMD/{node}");
    client.try_publish(topic, payload.write(), PublishOptions::at_most_once())
}
