//! Three members of etcd on this machine, and clients that put into them: the peer that bookings are measured beside.

use anyhow::{Context as _, ensure};
use millpool_demo::cluster::{free_ports, spawn};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// Bytes of a value: about what a booking's log entry has.
const VALUE_BYTES: usize = 256;
/// How long it may take to have a leader.
const LEADER_WAIT: Duration = Duration::from_secs(30);

/// `etcdserverpb.PutRequest`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// A message of which nothing is used.
#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

/// `etcdserverpb.ResponseHeader`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

/// `etcdserverpb.StatusResponse`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// Three members, which die with it.
pub(crate) struct Etcd {
    _members: Vec<Child>,
    endpoints: Vec<String>,
    leader: usize,
}

impl Etcd {
    /// Starts three members that keep what they know in `folder`, and waits until one leads.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let ports = free_ports(6)?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (clients, peers) = ports.split_at(3);
        let cluster: Vec<String> =
            peers.iter().enumerate().map(|(n, port)| format!("etcd-{n}={}", url(*port))).collect();
        let mut members = Vec::new();
        for n in 0..3 {
            let mut command = Command::new("etcd");
            command.arg("--data-dir").arg(folder.join(format!("etcd-{n}")));
            command.args(["--name", &format!("etcd-{n}"), "--logger", "zap", "--log-level", "error"]);
            command.args([
                "--listen-client-urls",
                &url(clients[n]),
                "--advertise-client-urls",
                &url(clients[n]),
            ]);
            command.args([
                "--listen-peer-urls",
                &url(peers[n]),
                "--initial-advertise-peer-urls",
                &url(peers[n]),
            ]);
            command.args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"]);
            let member = spawn(&mut command, &folder.join(format!("etcd-{n}.log")));
            members.push(member.context("is Debian's etcd-server installed?")?);
        }
        let mut etcd =
            Self { _members: members, endpoints: clients.iter().map(|port| url(*port)).collect(), leader: 0 };
        let began = Instant::now();
        while !etcd.has_leader().await {
            ensure!(began.elapsed() < LEADER_WAIT, "etcd has no leader after {LEADER_WAIT:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(etcd)
    }

    /// Finds the leader, which clients talk to, as Millpool's do.
    async fn has_leader(&mut self) -> bool {
        for (n, endpoint) in self.endpoints.iter().enumerate() {
            let Ok(mut client) = Putter::connect(endpoint, String::new()) else { continue };
            let asked =
                client.call::<_, StatusResponse>("/etcdserverpb.Maintenance/Status", Nothing {}).await;
            let Ok(status) = asked else { continue };
            if status.leader != 0 && status.header.is_some_and(|h| h.member_id == status.leader) {
                self.leader = n;
                return true;
            }
        }
        false
    }

    /// As many clients, each with a connection of its own. `run` tells their keys from others'.
    pub(crate) fn clients(&self, count: usize, run: &str) -> anyhow::Result<Vec<Putter>> {
        let client = |n| Putter::connect(&self.endpoints[self.leader], format!("{run}/{n}"));
        (0..count).map(client).collect()
    }
}

/// A client that puts under one key after another.
pub(crate) struct Putter {
    grpc: tonic::client::Grpc<Channel>,
    name: String,
    count: u64,
}

impl Putter {
    fn connect(endpoint: &str, name: String) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?.connect_lazy();
        Ok(Self { grpc: tonic::client::Grpc::new(channel), name, count: 0 })
    }

    /// Puts the next key.
    pub(crate) async fn put(&mut self) -> anyhow::Result<()> {
        self.count += 1;
        let key = format!("{}/{}", self.name, self.count).into_bytes();
        let request = PutRequest { key, value: vec![b'v'; VALUE_BYTES] };
        self.call::<_, Nothing>("/etcdserverpb.KV/Put", request).await.map(drop)
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> anyhow::Result<A>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        self.grpc.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        let request = tonic::Request::new(request);
        Ok(self.grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
    }
}
