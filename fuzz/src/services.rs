//! The public API: a node of its own for every input, and calls of everything that it serves.
//!
//! An input is calls, one after the other: which RPC, who calls, how many messages, and the messages. The node runs on
//! simulated time and disks, and begins with the sample alliance, so that an input does the same every time.

use crate::sample::{START_S, sample};
use crate::{Parts, put_bytes};
use bytes::{Buf as _, BufMut as _, Bytes};
use millpool_alliance::line::Station;
use millpool_alliance::{Format, invariants};
use millpool_proto::v1;
use millpool_scheduler::api::{Access, Core, TABLE};
use millpool_scheduler::clock::Clock;
use millpool_scheduler::consensus::disk::memory::MemoryDisk;
use millpool_scheduler::consensus::{self, Addresses, Offload, Options, Taken, Transport, seed_this_thread};
use millpool_scheduler::planner::Schedule;
use millpool_scheduler::replica::Replica;
use millpool_scheduler::serve::{self, Ground};
use millpool_scheduler::wire;
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

/// Most calls of an input; what comes after them is not read.
const CALLS_MAX: usize = 8;
/// Most messages of an answer that are waited for.
const ANSWERS_MAX: usize = 4;
/// How long an answer may take, of simulated time.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a stream may be silent before it is left.
const SILENCE: Duration = Duration::from_millis(300);
/// Of whom the agent's calls are, below.
const AGENT: u8 = 4;

/// Who calls.
fn token(number: u8) -> String {
    let plant = sample().state.plants().values().next().expect("a plant of the sample's");
    match number % 8 {
        0 => "operator:operator".to_owned(),
        1 => "buyer:ada".to_owned(),
        2 => "buyer:ben".to_owned(),
        3 => format!("member:{}", plant.member),
        AGENT => format!("agent:{}", plant.id),
        5 => "auditor:eve".to_owned(),
        6 => "nobody".to_owned(),
        _ => "buyer:A space".to_owned(),
    }
}

/// Calls a node, and holds its state against the rules.
pub fn call(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        seed_this_thread(1);
        let core = node().await;
        let mut parts = Parts(input);
        for _ in 0..CALLS_MAX {
            if parts.is_over() {
                break;
            }
            let path = TABLE[usize::from(parts.byte()) % TABLE.len()].0;
            let token = token(parts.byte());
            let messages = (0..parts.byte() % 4 + 1).map(|_| Bytes::copy_from_slice(parts.bytes())).collect();
            ask(&core, path, &token, messages).await;
        }
        let broken = invariants::violations(&core.consensus.state().state.0);
        assert!(broken.is_empty(), "{broken:?}");
        core.consensus.shutdown().await;
        // Whoever waits for the end lets go of the node.
        tokio::time::sleep(SILENCE).await;
    });
}

/// A node that leads, with the sample alliance.
async fn node() -> Core {
    let disk = MemoryDisk::new();
    let state = sample().state.clone();
    let taken = Taken {
        cluster_id: "fuzz".to_owned(),
        revision: state.revision(),
        term: 1,
        state: Replica(state, Format::NEWEST),
    };
    let addresses = Addresses { peers: "fuzz:7401".to_owned(), public: "fuzz:7400".to_owned() };
    let options = Options { format_max: Format::NEWEST.number(), ..Options::new("fuzz", 1, 7) };
    let storage = disk.storage(Offload::Inline);
    consensus::restore(&storage, &options, addresses, &taken).await.expect("an empty disk takes a state");
    // Whoever is added as a node is not there.
    let nowhere = |_| Ok(Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
    let never = Schedule { every: PATIENCE, time_limit: Duration::ZERO, threads: 1, tries: None };
    let ground = Ground {
        options,
        storage,
        transport: Transport::new("http", Arc::new(nowhere)),
        clock: Clock::wall().read_by(|| START_S * 1000),
        schedule: never,
        silent_after: PATIENCE,
        reads: Format::NEWEST,
    };
    let core = serve::assemble(ground, Access { insecure_dev: true }).await.expect("the node starts");
    while !core.consensus.leadership().is_ready {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    core
}

/// One call. Whatever was sent, the answer is no accident.
async fn ask(core: &Core, path: &'static str, token: &str, messages: Vec<Bytes>) {
    let mut request = Request::new(tokio_stream::iter(messages));
    let header = format!("Bearer {token}").parse().expect("a header");
    request.metadata_mut().insert("authorization", header);
    let mut client = tonic::client::Grpc::new(serve::services(core));
    client.ready().await.expect("the services are ready");
    let answered = async {
        let mut answers = client.streaming(request, path.parse().expect("a path"), Raw).await?.into_inner();
        for _ in 0..ANSWERS_MAX {
            let Ok(answer) = tokio::time::timeout(SILENCE, answers.message()).await else { break };
            if answer?.is_none() {
                break;
            }
        }
        Ok::<(), Status>(())
    };
    let answered = tokio::time::timeout(PATIENCE, answered).await;
    let Err(status) = answered.unwrap_or_else(|_| panic!("{path} has not answered within {PATIENCE:?}"))
    else {
        return;
    };
    // So tonic calls what is not a message at all.
    let not_read =
        status.message().starts_with("failed to decode") || status.message().starts_with("Missing");
    let accident = matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss);
    assert!(!accident || not_read, "{path}: {status:?}");
}

/// Messages as bytes.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A call as an input has it.
fn written(path: &str, token: u8, messages: &[Vec<u8>]) -> Vec<u8> {
    let rpc = TABLE.iter().position(|(known, _)| known.ends_with(path)).expect("an RPC of the table");
    let mut input = vec![rpc as u8, token, messages.len().saturating_sub(1) as u8];
    messages.iter().for_each(|message| put_bytes(&mut input, message));
    input
}

/// Every RPC with nothing in it; those that change something as they are meant; and a booking's life.
pub fn calls() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = TABLE.iter().map(|(path, _)| written(path, 0, &[Vec::new()])).collect();
    let request = sample().requests[0].clone();
    let state = &sample().state;
    let one = |path, token, message: &dyn Fn() -> Vec<u8>| written(path, token, &[message()]);
    let id = |text: &str| text.to_owned();
    let quote = v1::QuoteRequest { order: request.order.clone(), consistency: None };
    let hold = v1::BookRequest { request_id: id("again-1"), hold_s: 300, ..request };
    let booking_id = state.bookings().values().next().map(|b| b.id.to_string()).unwrap_or_default();
    let cancel = v1::CancelBookingRequest {
        request_id: id("c-1"),
        booking_id: booking_id.clone(),
        ..Default::default()
    };
    let confirm = v1::ConfirmBookingRequest { request_id: id("d-1"), booking_id: booking_id.clone() };
    let policy = v1::PutPolicyRequest {
        request_id: id("p-1"),
        policy: Some(wire::registry::policy(state.policy())),
        expected_revision: state.policy().revision,
    };
    let of_machine = state.stations().values().next().map(|s| wire::registry::machine(&s.machine));
    let machine = v1::PutMachineRequest {
        request_id: id("m-1"),
        expected_revision: of_machine.as_ref().map_or(0, |m| m.revision),
        machine: of_machine,
    };
    let life = [
        one("/Quote", 1, &|| quote.encode_to_vec()),
        one("/Book", 1, &|| hold.encode_to_vec()),
        one("/ConfirmBooking", 1, &|| confirm.encode_to_vec()),
        one("/CancelBooking", 1, &|| cancel.encode_to_vec()),
    ];
    seeds.push(life.concat());
    seeds.extend(life);
    let say = |body| v1::AgentMessage { body: Some(body) }.encode_to_vec();
    let agent = state.agents().values().next().expect("the sample's agent");
    let hello = v1::Hello {
        plant_id: agent.plant.to_string(),
        agent_id: agent.agent.clone(),
        outbox_id: agent.outbox.clone(),
        clock_ms: START_S * 1000,
        last_seq: 2,
        ..v1::Hello::default()
    };
    let own = |s: &&Arc<Station>| s.machine.plant == agent.plant;
    let machine_id = state.stations().values().find(own).map(|s| s.id().to_string()).unwrap_or_default();
    let fault = v1::StateChanged { state: v1::MachineState::Blocked.into() };
    let what = Some(v1::agent_event::What::StateChanged(fault));
    let event = v1::AgentEvent { seq: 2, at_ms: START_S * 1000, machine_id, what };
    let session = [
        say(v1::agent_message::Body::Hello(hello)),
        say(v1::agent_message::Body::Events(v1::AgentEvents { events: vec![event] })),
        say(v1::agent_message::Body::DispatchKept(v1::DispatchKept::default())),
    ];
    seeds.push(written("/Attach", AGENT, &session));
    seeds.push(one("/PutPolicy", 0, &|| policy.encode_to_vec()));
    seeds.push(one("/PutMachine", 0, &|| machine.encode_to_vec()));
    seeds
}

const _: () = assert!(TABLE.len() < 256, "an RPC is one byte");
