//! An MQTT broker in the configuration, to read from or to publish on: its address, certificates and password.

use super::{Found, is_address, is_loopback};
use crate::adapter::sparkplug::{Broker, Tls};
use crate::adapter::{Identity, Password};
use std::path::{Path, PathBuf};

/// A broker's settings, wherever they stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct BrokerFile<'a> {
    /// `mqtts://host:port` or `mqtt://host:port`.
    pub broker: &'a str,
    /// The broker's user; nobody's name without.
    pub user: Option<&'a str>,
    /// A file with the user's password.
    pub password_file: Option<&'a Path>,
    /// PEM file of the authority that signed the broker's certificate.
    pub ca_file: Option<&'a PathBuf>,
    /// PEM file of the agent's certificate.
    pub cert_file: Option<&'a PathBuf>,
    /// PEM file of the agent's key.
    pub key_file: Option<&'a PathBuf>,
    /// The agent's name on the broker.
    pub client_id: Option<&'a str>,
}

/// Checks a broker's settings. `client_id` is its name on the broker, where it is given none.
pub(super) fn resolve(
    field: &str,
    own: BrokerFile<'_>,
    client_id: &str,
    found: &mut Found,
) -> Option<Broker> {
    let (encrypted, address) = match (own.broker.strip_prefix("mqtts://"), own.broker.strip_prefix("mqtt://"))
    {
        (Some(address), _) => (true, address),
        (None, Some(address)) => (false, address),
        (None, None) => (false, ""),
    };
    let Some((host, port)) =
        address.rsplit_once(':').filter(|(host, _)| !host.contains('/') && is_address(address))
    else {
        let accepted = "mqtts://host:port, or mqtt://host:port";
        return found.wrong(&format!("{field}.broker"), own.broker, accepted);
    };
    let readable = (!encrypted && !is_loopback(address)).then_some("mqtt:// to another host");
    let identity = identity(field, own.user, own.password_file, readable, found)?;
    Some(Broker {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: port.parse().unwrap_or_default(),
        tls: tls(field, own, encrypted, found)?,
        identity,
        client_id: own.client_id.unwrap_or(client_id).to_owned(),
    })
}

fn tls(field: &str, own: BrokerFile<'_>, encrypted: bool, found: &mut Found) -> Option<Option<Tls>> {
    let mut file = |name: &str, path: &Path| found.file(&format!("{field}.{name}"), path);
    match (encrypted, own.ca_file, own.cert_file, own.key_file) {
        (false, None, None, None) => Some(None),
        (true, Some(ca), None, None) => Some(Some(Tls { ca_pem: file("ca_file", ca)?, identity_pem: None })),
        (true, Some(ca), Some(cert), Some(key)) => Some(Some(Tls {
            ca_pem: file("ca_file", ca)?,
            identity_pem: Some((file("cert_file", cert)?, file("key_file", key)?)),
        })),
        (false, ..) => found.wrong(&format!("{field}.broker"), own.broker, "mqtts://, with certificates"),
        (true, None, ..) => found.wrong(&format!("{field}.ca_file"), "none", "a PEM file, with mqtts://"),
        (true, Some(_), cert, key) => {
            found.wrong(&format!("{field}.cert_file"), (cert, key), "cert_file and key_file together")
        }
    }
}

/// As whom the agent appears. A password is not sent where it could be read, which is the case with
/// `readable`.
pub(super) fn identity(
    field: &str,
    user: Option<&str>,
    password_file: Option<&Path>,
    readable: Option<&str>,
    found: &mut Found,
) -> Option<Identity> {
    match (user, password_file, readable) {
        (None, None, _) => Some(Identity::Anonymous),
        (Some(user), _, Some(readable)) => {
            let accepted = format!("none, with {readable}: the password could be read on the network");
            found.wrong(&format!("{field}.user"), user, &accepted)
        }
        (Some(user), Some(path), None) => {
            let bytes = found.file(&format!("{field}.password_file"), path)?;
            let password = Password::new(String::from_utf8_lossy(&bytes).trim());
            Some(Identity::User { name: user.to_owned(), password })
        }
        _ => found.wrong(&format!("{field}.user"), user, "a name together with a password_file, or neither"),
    }
}

/// A part of a Sparkplug topic: a group, an edge node or a device.
pub(super) fn topic_part(field: &str, value: Option<&String>, found: &mut Found) -> Option<String> {
    let value = value.cloned().unwrap_or_default();
    let good = (1..=256).contains(&value.len()) && !value.contains(['/', '+', '#']);
    if good { Some(value) } else { found.wrong(field, value, "1 to 256 bytes, none of them /, + or #") }
}
