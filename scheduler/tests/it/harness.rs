//! The shipped binary as one process or three, on free ports and in a temporary folder, and clients that
//! speak to it as somebody.

use millpool_proto::v1::admin_service_client::AdminServiceClient;
use millpool_proto::v1::agent_service_client::AgentServiceClient;
use millpool_proto::v1::booking_service_client::BookingServiceClient;
use millpool_proto::v1::capacity_service_client::CapacityServiceClient;
use millpool_proto::v1::plan_service_client::PlanServiceClient;
use millpool_proto::v1::remote_service_client::RemoteServiceClient;
use millpool_proto::v1::{self, GetStatusResponse};
use std::collections::HashMap;
use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

/// How long anything that takes its time may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Seconds since the Unix epoch.
pub fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// A request id that no other has.
pub fn fresh() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Coordinators as processes. They die with it.
pub struct Cluster {
    nodes: Vec<Node>,
    folder: tempfile::TempDir,
    settings: Vec<(String, String)>,
}

struct Node {
    id: usize,
    public: u16,
    peer: u16,
    metrics: u16,
    process: Option<Child>,
}

impl Cluster {
    /// Starts `count` nodes that do not optimise, and waits until they are led.
    pub async fn start(count: usize) -> Cluster {
        Cluster::with(count, &[("optimise-for-ms", "0")]).await
    }

    /// Starts `count` nodes with these settings, and waits until they are led.
    pub async fn with(count: usize, settings: &[(&str, &str)]) -> Cluster {
        let mut ports = free_ports(3 * count).into_iter();
        let mut port = || ports.next().unwrap();
        let nodes = (1..=count)
            .map(|id| Node { id, public: port(), peer: port(), metrics: port(), process: None })
            .collect();
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut cluster = Cluster { nodes, folder: tempfile::tempdir().unwrap(), settings };
        (0..count).for_each(|i| cluster.start_node(i));
        cluster.leader().await;
        cluster
    }

    /// Nodes have this setting from their next start on.
    pub fn set(&mut self, flag: &str, value: &str) {
        self.settings.retain(|(known, _)| known != flag);
        self.settings.push((flag.to_owned(), value.to_owned()));
    }

    /// How many nodes it has.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Where a node keeps its data.
    pub fn data(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("node-{}", self.nodes[index].id))
    }

    /// A node's ports: for clients, for peers, for metrics.
    pub fn ports(&self, index: usize) -> (u16, u16, u16) {
        let node = &self.nodes[index];
        (node.public, node.peer, node.metrics)
    }

    /// The command that runs a node.
    pub fn command(&self, index: usize) -> Command {
        let node = &self.nodes[index];
        let local = |port: u16| format!("127.0.0.1:{port}");
        let member = |n: &Node| format!("{}={}/{}", n.id, local(n.peer), local(n.public));
        let members: Vec<String> = self.nodes.iter().map(member).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpool-scheduler"));
        let mut set = |flag: &str, value: &str| {
            command.arg(format!("--{flag}")).arg(value);
        };
        set("insecure-dev", "true");
        set("cluster-id", "test");
        set("node-id", &node.id.to_string());
        set("data-dir", &self.data(index).display().to_string());
        set("public-listen", &local(node.public));
        set("metrics-listen", &local(node.metrics));
        match self.nodes.len() {
            1 => set("single", "true"),
            _ => {
                set("peer-listen", &local(node.peer));
                set("initial-cluster", &members.join(","));
            }
        }
        set("solver-threads", "1");
        self.settings.iter().for_each(|(flag, value)| set(flag, value));
        command
    }

    /// Starts a node on what its folder holds.
    pub fn start_node(&mut self, index: usize) {
        let file = self.log_file(index);
        let log = std::fs::File::options().create(true).append(true).open(file).unwrap();
        let mut command = self.command(index);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.nodes[index].process = Some(command.spawn().unwrap());
    }

    fn log_file(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("node-{}.log", self.nodes[index].id))
    }

    /// What a node has said.
    pub fn log(&self, index: usize) -> String {
        std::fs::read_to_string(self.log_file(index)).unwrap_or_default()
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.nodes[index].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Asks a node to stop, and waits until it has.
    pub async fn terminate(&mut self, index: usize) -> ExitStatus {
        let mut process = self.nodes[index].process.take().unwrap();
        Command::new("kill").arg("-TERM").arg(process.id().to_string()).status().unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status;
            }
            if begun.elapsed() > PATIENCE {
                let _ = process.kill();
                panic!("node {} does not stop:\n{}", index + 1, self.log(index));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether a node's process is there.
    pub fn is_up(&mut self, index: usize) -> bool {
        let process = self.nodes[index].process.as_mut();
        process.is_some_and(|p| p.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// The index of the node that leads, once a majority that is up says so and it answers.
    pub async fn leader(&mut self) -> usize {
        let begun = Instant::now();
        loop {
            let mut votes: HashMap<u64, usize> = HashMap::new();
            for index in 0..self.len() {
                if let Some(status) = self.status(index).await {
                    *votes.entry(status.leader_id).or_default() += 1;
                }
            }
            let led = votes.iter().find(|(id, n)| **id > 0 && **n * 2 > self.len()).map(|(id, _)| *id);
            if let Some(id) = led {
                let index = id as usize - 1;
                let mut capacity = self.operator(index).capacity();
                let read = capacity.list_members(v1::ListMembersRequest::default());
                if tokio::time::timeout(Duration::from_secs(2), read).await.is_ok_and(|read| read.is_ok()) {
                    return index;
                }
            }
            if begun.elapsed() > PATIENCE {
                let logs: Vec<String> = (0..self.len()).map(|i| self.log(i)).collect();
                panic!("nobody leads ({votes:?}):\n{}", logs.join("\n---\n"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What a node knows; None if it does not answer.
    pub async fn status(&self, index: usize) -> Option<GetStatusResponse> {
        let mut admin = self.operator(index).admin();
        let asked = admin.get_status(v1::GetStatusRequest {});
        let answer = tokio::time::timeout(Duration::from_secs(1), asked).await.ok()?;
        answer.ok().map(tonic::Response::into_inner)
    }

    /// A client of a node that says it is `token`, e.g. `buyer:bo`.
    pub fn client(&self, index: usize, token: &str) -> Client {
        Client::of(self.nodes[index].public, token)
    }

    /// An operator's client of a node.
    pub fn operator(&self, index: usize) -> Client {
        self.client(index, "operator:op")
    }

    /// Waits until every node that is up has applied the same, and answers with the hash.
    pub async fn agree(&mut self) -> u64 {
        let begun = Instant::now();
        loop {
            let mut seen = Vec::new();
            for index in 0..self.len() {
                if self.is_up(index) {
                    let status = self.status(index).await;
                    seen.push(status.map(|s| (s.header.unwrap().revision, s.state_hash)));
                }
            }
            if let Some(Some(first)) = seen.first().copied()
                && seen.iter().all(|s| s.is_some_and(|s| s.0 == first.0))
            {
                assert!(
                    seen.iter().all(|s| *s == Some(first)),
                    "hashes differ at equal revisions: {seen:x?}"
                );
                return first.1;
            }
            assert!(begun.elapsed() < PATIENCE, "the nodes do not come to the same revision: {seen:x?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|index| self.kill(index));
        if std::thread::panicking() {
            for index in 0..self.nodes.len() {
                let log = self.log(index);
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("--- end of the log of node {}", index + 1);
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// Ports that nobody listens on now.
pub fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|l| l.local_addr().unwrap().port()).collect()
}

/// Adds the token to each call.
#[derive(Clone)]
pub struct Token(MetadataValue<Ascii>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Line = InterceptedService<Channel, Token>;

/// A caller of one node.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    token: Token,
}

impl Client {
    /// A client of whoever listens on a port, with a token.
    pub fn of(port: u16, token: &str) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
        let channel = endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy();
        Client { channel, token: Token(format!("Bearer {token}").parse().unwrap()) }
    }

    fn line(&self) -> Line {
        InterceptedService::new(self.channel.clone(), self.token.clone())
    }

    pub fn booking(&self) -> BookingServiceClient<Line> {
        BookingServiceClient::new(self.line())
    }

    pub fn capacity(&self) -> CapacityServiceClient<Line> {
        CapacityServiceClient::new(self.line())
    }

    pub fn plan(&self) -> PlanServiceClient<Line> {
        PlanServiceClient::new(self.line())
    }

    pub fn remote(&self) -> RemoteServiceClient<Line> {
        RemoteServiceClient::new(self.line())
    }

    pub fn agent(&self) -> AgentServiceClient<Line> {
        AgentServiceClient::new(self.line())
    }

    pub fn admin(&self) -> AdminServiceClient<Line> {
        AdminServiceClient::new(self.line())
    }

    /// Books what must be bookable, confirmed at once.
    pub async fn book(&self, order: v1::Order) -> v1::Booking {
        let request = v1::BookRequest { request_id: fresh(), order: Some(order), ..Default::default() };
        self.booking().book(request).await.unwrap().into_inner().booking.unwrap()
    }

    /// A booking as it is.
    pub async fn get(&self, id: &str) -> Result<v1::Booking, Status> {
        let request = v1::GetBookingRequest { booking_id: id.into(), consistency: None };
        Ok(self.booking().get_booking(request).await?.into_inner().booking.unwrap())
    }
}

/// What a refusal says to programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub code: Code,
    pub reason: String,
    pub field: String,
    pub value: String,
    pub accepted: String,
    pub metadata: HashMap<String, String>,
}

/// Reads a refusal's details.
pub fn said(status: &Status) -> Said {
    let info = status.get_details_error_info();
    let (reason, metadata) = info.map(|i| (i.reason, i.metadata)).unwrap_or_default();
    let of = |key: &str| metadata.get(key).cloned().unwrap_or_default();
    Said {
        code: status.code(),
        reason,
        field: of("field"),
        value: of("value"),
        accepted: of("accepted"),
        metadata: metadata.clone(),
    }
}

/// Waits until `found` answers with something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut found: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whole minutes from now.
pub fn minutes(ahead: i64) -> i64 {
    now_s() / 60 * 60 + ahead * 60
}

/// A three-axis mill of half a metre, steel and aluminium, families a, b and c.
pub fn mill(id: &str, plant: &str) -> v1::Machine {
    let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    v1::Machine {
        id: id.into(),
        plant_id: plant.into(),
        name: id.to_uppercase(),
        class: v1::MachineClass::Mill.into(),
        axes: 3,
        envelope: Some(v1::Size { x_mm: 500, y_mm: 500, z_mm: 500 }),
        mass_max_g: 100_000,
        tolerance_um: 10,
        materials: text(&["steel", "aluminium"]),
        setup_families: text(&["a", "b", "c"]),
        changeover_default_s: 1800,
        rate_fen_per_hour: 36_000,
        setup_rate_fen_per_hour: 18_000,
        speed_permille: 1000,
        power: Some(v1::PowerModel { idle_w: 100, setup_w: 1000, cutting_w: 10_000 }),
        ..Default::default()
    }
}

/// One piece of `length` minutes on a mill, due in a week.
pub fn operation(family: &str, length: u32) -> v1::Operation {
    v1::Operation {
        class: v1::MachineClass::Mill.into(),
        setup_family: family.into(),
        run_s_per_piece: length * 60,
        ..Default::default()
    }
}

/// An order of one piece of steel.
pub fn order(route: Vec<v1::Operation>) -> v1::Order {
    v1::Order {
        reference: "PO-1".into(),
        quantity: 1,
        material: "steel".into(),
        size: Some(v1::Size { x_mm: 100, y_mm: 100, z_mm: 100 }),
        mass_g: 1000,
        route,
        due_s: minutes(7 * 24 * 60),
        ..Default::default()
    }
}

pub fn put_member(id: &str) -> v1::PutMemberRequest {
    let member = v1::Member { id: id.into(), name: id.to_uppercase(), revision: 0 };
    v1::PutMemberRequest { request_id: fresh(), member: Some(member), expected_revision: 0 }
}

pub fn plant(id: &str, member: &str, east_m: i64) -> v1::Plant {
    v1::Plant {
        id: id.into(),
        member_id: member.into(),
        name: id.to_uppercase(),
        time_zone: "Asia/Shanghai".into(),
        east_m,
        north_m: 0,
        grid_region: "CN-CQ".into(),
        revision: 0,
    }
}

pub fn put_plant(plant: v1::Plant) -> v1::PutPlantRequest {
    v1::PutPlantRequest { request_id: fresh(), plant: Some(plant), expected_revision: 0 }
}

pub fn put_machine(machine: v1::Machine) -> v1::PutMachineRequest {
    v1::PutMachineRequest { request_id: fresh(), machine: Some(machine), expected_revision: 0 }
}

/// An offer of one window.
pub fn offer(id: &str, machine: &str, start_s: i64, end_s: i64) -> v1::Offer {
    v1::Offer {
        id: id.into(),
        machine_id: machine.into(),
        windows: vec![v1::Window { start_s, end_s }],
        ..Default::default()
    }
}

pub fn create_offer(offer: v1::Offer) -> v1::CreateOfferRequest {
    v1::CreateOfferRequest { request_id: fresh(), offer: Some(offer) }
}

/// Two members with a plant each, 10 km apart: `mill-1` and `mill-2` in `p-1` of `acme`, `mill-3` in `p-2`
/// of `beta`. All open from an hour ago for 20 days.
pub async fn found_alliance(client: &Client) {
    let mut capacity = client.capacity();
    for (member, name, east_m) in [("acme", "p-1", 0), ("beta", "p-2", 10_000)] {
        capacity.put_member(put_member(member)).await.unwrap();
        capacity.put_plant(put_plant(plant(name, member, east_m))).await.unwrap();
    }
    for (id, at) in [("mill-1", "p-1"), ("mill-2", "p-1"), ("mill-3", "p-2")] {
        capacity.put_machine(put_machine(mill(id, at))).await.unwrap();
        let open = offer(&format!("o-{id}"), id, minutes(-60), minutes(20 * 24 * 60));
        capacity.create_offer(create_offer(open)).await.unwrap();
    }
}

/// Changes the policy.
pub async fn change_policy(client: &Client, change: impl FnOnce(&mut v1::Policy)) {
    let mut admin = client.admin();
    let mut policy =
        admin.get_policy(v1::GetPolicyRequest::default()).await.unwrap().into_inner().policy.unwrap();
    change(&mut policy);
    let expected_revision = policy.revision;
    let request = v1::PutPolicyRequest { request_id: fresh(), policy: Some(policy), expected_revision };
    admin.put_policy(request).await.unwrap();
}
