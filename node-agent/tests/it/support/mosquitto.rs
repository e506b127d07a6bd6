//! Debian's mosquitto in a process of its own, and an edge node that publishes what it is told to.

use super::counterpart::free_port;
use millpool_node_agent::adapter::sparkplug::payload::{Content, Metric, Payload, UINT64};
use millpool_node_agent::adapter::sparkplug::{Broker, Tls};
use millpool_node_agent::adapter::{Identity, Password};
use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, PublishOptions, QoS, TlsConfiguration,
    Transport,
};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);
/// Whom a secured broker lets in.
const USER: &str = "millpool";
const PASSWORD: &str = "right";

pub struct Mosquitto {
    pub port: u16,
    child: Child,
    config: TempDir,
}

/// Where a program is; Debian keeps mosquitto where only root looks.
fn program(name: &str) -> String {
    let found = |folder: &&str| Path::new(folder).join(name).is_file();
    let folder = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"].into_iter().find(found);
    let folder = folder.unwrap_or_else(|| panic!("{name} is missing: make test-setup installs it"));
    format!("{folder}/{name}")
}

impl Mosquitto {
    /// Lets anybody in, unencrypted.
    pub async fn open() -> Self {
        Self::start(|_| "allow_anonymous true\n".to_owned()).await
    }

    /// Lets in the user `millpool` whose password is `right`, over TLS. Answers also with the certificate of who
    /// vouches for it, PEM.
    pub async fn secured() -> (Self, String) {
        let authority = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_pem = params.self_signed(&authority).unwrap().pem();
        let issuer = rcgen::Issuer::new(params, authority);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let own = params.signed_by(&key, &issuer).unwrap();
        let broker = Self::start(|folder| {
            let file = |name: &str, text: &str| {
                std::fs::write(folder.join(name), text).unwrap();
                folder.join(name).display().to_string()
            };
            set_password(&folder.join("passwords"), USER, PASSWORD);
            format!(
                "cafile {}\ncertfile {}\nkeyfile {}\npassword_file {}\nallow_anonymous false\n",
                file("ca.pem", &ca_pem),
                file("own.pem", &own.pem()),
                file("own.key", &key.serialize_pem()),
                folder.join("passwords").display()
            )
        })
        .await;
        (broker, ca_pem)
    }

    /// Starts on a free port, with more lines of configuration about files in its folder.
    pub async fn start(more: impl FnOnce(&Path) -> String) -> Self {
        let (config, port) = (tempfile::tempdir().unwrap(), free_port());
        let user = if is_root() { "user root\n" } else { "" };
        let lines = format!("{user}listener {port} 127.0.0.1\npersistence false\n{}", more(config.path()));
        std::fs::write(config.path().join("mosquitto.conf"), lines).unwrap();
        let child = spawn(config.path());
        let broker = Self { port, child, config };
        broker.until_open().await;
        broker
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it where it stands: its lines stay open, and nothing comes of them.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Starts it anew on the same port.
    pub async fn restart(&mut self) {
        self.child = spawn(self.config.path());
        self.until_open().await;
    }

    async fn until_open(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "mosquitto does not listen within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(config: &Path) -> Child {
    let mut command = Command::new(program("mosquitto"));
    command.arg("-c").arg(config.join("mosquitto.conf")).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

/// A broker's password file.
fn set_password(file: &Path, user: &str, password: &str) {
    let made = Command::new(program("mosquitto_passwd"))
        .arg("-b")
        .arg("-c")
        .arg(file)
        .args([user, password])
        .output();
    assert!(made.unwrap().status.success());
}

/// An edge node, group `plant`.
pub struct Edge {
    pub client: AsyncClient,
    name: &'static str,
    /// Its next message's number.
    pub seq: u64,
    /// How often a rebirth was asked.
    asked: Arc<AtomicU64>,
    running: JoinHandle<()>,
}

pub fn options(name: &str, port: u16) -> MqttOptions {
    let mut options = MqttOptions::new(name, ("127.0.0.1", port));
    options.set_keep_alive(5);
    options
}

/// Options for a broker that is [`Mosquitto::secured`].
pub fn secured(name: &str, port: u16, ca_pem: &str) -> MqttOptions {
    let mut options = options(name, port);
    options.set_credentials(USER.to_owned(), PASSWORD.to_owned());
    let simple = TlsConfiguration::Simple { ca: ca_pem.as_bytes().to_vec(), alpn: None, client_auth: None };
    options.set_transport(Transport::tls_with_config(simple));
    options
}

/// The same broker over TLS, as the user that it knows, with this password.
pub fn of_user(broker: Broker, password: &str, ca_pem: &str, client_id: &str) -> Broker {
    Broker {
        tls: Some(Tls { ca_pem: ca_pem.into(), identity_pem: None }),
        identity: Identity::User { name: USER.into(), password: Password::new(password) },
        client_id: client_id.into(),
        ..broker
    }
}

impl Edge {
    /// Connects, and waits until it hears commands.
    pub async fn start(name: &'static str, mut options: MqttOptions, will: Option<u64>) -> Self {
        if let Some(session) = will {
            let topic = format!("spBv1.0/plant/NDEATH/{name}");
            options.set_last_will(LastWill::new(
                topic,
                death(session).write(),
                QoS::AtLeastOnce,
                false,
                None,
            ));
        }
        let (client, mut events) = AsyncClient::builder(options).capacity(1_000).build();
        let asked = Arc::new(AtomicU64::new(0));
        let filter = format!("spBv1.0/plant/NCMD/{name}");
        next_connection(&client, &mut events, &filter).await;
        let (commander, count) = (client.clone(), asked.clone());
        let running = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let payload = Payload::read(publish.payload).unwrap();
                        let [rebirth] = &payload.metrics[..] else { panic!("{payload:?}") };
                        assert_eq!(rebirth.name.as_deref(), Some("Node Control/Rebirth"));
                        assert_eq!(rebirth.content, Some(Content::Boolean(true)));
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(_) => {}
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        next_connection(&commander, &mut events, &filter).await;
                    }
                }
            }
        });
        Self { client, name, seq: 0, asked, running }
    }

    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until rebirths were asked so often.
    pub async fn until_asked(&self, times: u64) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.asked() < times {
            assert!(tokio::time::Instant::now() < deadline, "asked {} times, not {times}", self.asked());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn send(&self, topic: &str, payload: Vec<u8>) {
        self.client.publish(topic, payload, PublishOptions::at_most_once()).await.unwrap();
    }

    /// The next message of the sequence.
    pub async fn say(&mut self, kind: &str, device: Option<&str>, metrics: Vec<Metric>) {
        let device = device.map(|device| format!("/{device}")).unwrap_or_default();
        let payload = Payload { timestamp_ms: Some(now_ms()), seq: Some(self.seq), metrics };
        self.seq = (self.seq + 1) % 256;
        self.send(&format!("spBv1.0/plant/{kind}/{}{device}", self.name), payload.write()).await;
    }

    /// The node is born, and its devices with it.
    pub async fn birth(&mut self, session: u64, devices: &[(&str, Vec<Metric>)]) {
        self.seq = 0;
        self.say("NBIRTH", None, vec![Metric::named("bdSeq", UINT64, Content::Long(session))]).await;
        for (device, metrics) in devices {
            self.say("DBIRTH", Some(device), metrics.clone()).await;
        }
    }

    /// A death of a session, whenever it comes.
    pub async fn death(&self, session: u64) {
        self.send(&format!("spBv1.0/plant/NDEATH/{}", self.name), death(session).write()).await;
    }

    /// Is cut off without a word, so that the broker publishes its will.
    pub fn vanish(self) {
        self.running.abort();
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn next_connection(client: &AsyncClient, events: &mut EventLoop, filter: &str) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                client.try_subscribe(filter, QoS::AtLeastOnce).unwrap()
            }
            Ok(Event::Incoming(Packet::SubAck(_))) => return,
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn death(session: u64) -> Payload {
    let session = Metric::named("bdSeq", UINT64, Content::Long(session));
    Payload { timestamp_ms: Some(now_ms()), seq: None, metrics: vec![session] }
}

pub fn now_ms() -> u64 {
    jiff::Timestamp::now().as_millisecond() as u64
}
