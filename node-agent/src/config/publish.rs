//! `[agent.publish]`: where the plant's own dispatch list and states are published.

use super::broker::{self, BrokerFile};
use super::{AgentFile, Found};
use crate::adapter::sparkplug;
use crate::agent::{Adapter, Machine};
use crate::publish::Options;
use serde::Deserialize;
use std::path::PathBuf;

/// `[agent.publish]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublishFile {
    /// The broker, `mqtts://host:port` or `mqtt://host:port`.
    pub broker: String,
    /// The Sparkplug group: the member.
    pub group: Option<String>,
    /// The edge node; the plant's id where it is left out.
    pub node: Option<String>,
    /// The broker's user; nobody's name without.
    pub user: Option<String>,
    /// A file with the user's password.
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority that signed the broker's certificate.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the agent's certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the agent's key.
    pub key_file: Option<PathBuf>,
    /// The agent's name on the broker.
    pub client_id: Option<String>,
}

/// Checks where an agent publishes; nowhere, where it has no such section.
pub(super) fn resolve(
    field: &str,
    agent: &AgentFile,
    machines: &[Machine],
    found: &mut Found,
) -> Option<Options> {
    let own = agent.publish.as_ref()?;
    let field = format!("{field}.publish");
    let settings = BrokerFile {
        broker: &own.broker,
        user: own.user.as_deref(),
        password_file: own.password_file.as_deref(),
        ca_file: own.ca_file.as_ref(),
        cert_file: own.cert_file.as_ref(),
        key_file: own.key_file.as_ref(),
        client_id: own.client_id.as_deref(),
    };
    let broker = broker::resolve(&field, settings, &format!("millpool-{}-publish", agent.plant), found);
    let group = broker::topic_part(&format!("{field}.group"), own.group.as_ref(), found);
    let node = own.node.as_ref().unwrap_or(&agent.plant);
    let node = broker::topic_part(&format!("{field}.node"), Some(node), found);
    let options = Options { broker: broker?, group: group?, node: node? };
    apart(&field, &options, machines, found);
    Some(options)
}

/// A broker ends the older of two connections of one name, and no two edge nodes have one name.
fn apart(field: &str, own: &Options, machines: &[Machine], found: &mut Found) {
    for machine in machines {
        let Adapter::Sparkplug(options) = &machine.adapter else { continue };
        let sparkplug::Options { broker, machine: read } = options.as_ref();
        if broker.name() != own.broker.name() {
            continue;
        }
        if broker.client_id == own.broker.client_id {
            let accepted = format!("another name than that with which {} is read", machine.id);
            found.wrong::<()>(&format!("{field}.client_id"), &own.broker.client_id, &accepted);
        }
        let node = (&own.group, &own.node);
        if read.address.as_ref().is_some_and(|address| (&address.group, &address.node) == node) {
            let accepted = format!("an edge node of one's own: behind this one {} is read", machine.id);
            found.wrong::<()>(&format!("{field}.node"), &own.node, &accepted);
        }
    }
}

/// Two agents that publish on one broker need names of their own, too.
pub(super) fn apart_from<'a>(
    field: &str,
    own: &Options,
    others: impl Iterator<Item = &'a Options>,
    found: &mut Found,
) {
    let others = others.filter(|other| other.broker.name() == own.broker.name());
    for other in others {
        if other.broker.client_id == own.broker.client_id {
            let accepted = "a name that no other [[agent]] has on the broker";
            found.wrong::<()>(&format!("{field}.publish.client_id"), &own.broker.client_id, accepted);
        }
        if (&other.group, &other.node) == (&own.group, &own.node) {
            let accepted = "an edge node that no other [[agent]] is";
            found.wrong::<()>(&format!("{field}.publish.node"), &own.node, accepted);
        }
    }
}
