//! `AgentService`: one stream a plant's agent. Events go to the log in order, each once; the plant's
//! dispatch list comes back whenever it changes.

use super::answer::{failed, failure, reasons, refused};
use super::seats::Seat;
use super::stream::{self, Answers, Gone, Writer};
use super::{Core, observe, operator, programs};
use crate::planner::Failure;
use crate::wire::{agent as wire, remote};
use futures::FutureExt as _;
use millpool_alliance::command::{Caller, Event};
use millpool_alliance::progress::EVENTS_MAX;
use millpool_alliance::registry::Role;
use millpool_alliance::{Command, MachineId, PlantId, Reason, Refusal, Reply};
use millpool_proto::v1::{
    self, agent_event, agent_message, agent_service_server::AgentService, coordinator_message,
};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, Streaming};

const ATTACH: &str = "/millpool.v1.AgentService/Attach";
/// A sign of life at least this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// An agent that has been silent for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// What only shows how things go may wait for so long, and then shares an entry of the log: a second's view is fresh enough,
/// and what each entry costs is the same for one change and for a hundred.
const REPORTS_APART: Duration = Duration::from_millis(400);
/// How far an agent's clock may be off, ms of the alliance's clock at normal speed.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

#[tonic::async_trait]
impl AgentService for Core {
    type AttachStream = Answers<v1::CoordinatorMessage>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let begun = Instant::now();
        let answer = self.seat(request).await;
        observe(ATTACH, begun, answer.as_ref().map_or_else(Status::code, |_| Code::Ok));
        answer.map(Response::new)
    }

    async fn fetch_program(
        &self,
        request: Request<v1::FetchProgramRequest>,
    ) -> Result<Response<v1::FetchProgramResponse>, Status> {
        self.local(programs::FETCH, request, programs::fetch).await
    }
}

impl Core {
    /// Begins an agent's session, if it may have one.
    async fn seat(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Answers<v1::CoordinatorMessage>, Status> {
        let begun = Instant::now();
        let caller = self.admit(ATTACH, &request)?;
        self.must_lead()?;
        let mut incoming = request.into_inner();
        let hello = hello(&mut incoming).await?;
        let plant = PlantId::parse(&hello.plant_id).map_err(|r| refused(&r))?;
        if caller.role == Role::Agent && caller.id.as_str() != plant.as_str() {
            return Err(refused(&Refusal::unknown("plant_id", &plant)));
        }
        self.check_hello(&plant, &hello)?;
        let seat = self.seats.enter(&plant, &hello.agent_id).map_err(|r| refused(&r))?;
        let attach = Command::AttachAgent {
            plant: plant.clone(),
            agent: hello.agent_id.clone(),
            outbox: hello.outbox_id.clone(),
        };
        let outcome = self.planner.execute(operator(), None, attach).await.map_err(failure)?;
        let Ok(Reply::Applied(applied_seq, _)) = outcome.result else {
            return Err(Status::internal("an agent's command was answered with something else"));
        };
        let backlog = hello.last_seq.saturating_sub(applied_seq);
        let v1::Hello { agent_id, version, .. } = &hello;
        tracing::info!(%plant, agent = agent_id, applied_seq, backlog, version, "agent attached");
        let (writer, answers) = stream::channel();
        let session = Session {
            core: self.clone(),
            caller,
            plant,
            outbox: hello.outbox_id,
            applied_seq,
            unkept: None,
            echo_ms: hello.clock_ms,
            remote: Remote::default(),
            reported: begun,
            seat,
        };
        tokio::spawn(session.run(Incoming { stream: incoming, ahead: None }, writer));
        Ok(answers)
    }
}

/// Whether reports may wait for a moment: no plan changes by them, and they are no backlog.
fn may_wait(events: &[v1::AgentEvent]) -> bool {
    use agent_event::What::{EvidenceGap, StateChanged};
    let shows = |event: &v1::AgentEvent| matches!(event.what, Some(StateChanged(_) | EvidenceGap(_)));
    events.len() < EVENTS_MAX / 2 && events.iter().all(shows)
}

async fn hello(incoming: &mut Streaming<v1::AgentMessage>) -> Result<v1::Hello, Status> {
    let first = tokio::time::timeout(SILENCE_MAX, incoming.message()).await;
    match first.map_err(|_| Status::deadline_exceeded("no Hello in time"))?? {
        Some(v1::AgentMessage { body: Some(agent_message::Body::Hello(hello)) }) => Ok(hello),
        _ => Err(failed(Code::InvalidArgument, reasons::OUT_OF_ORDER, "the first message is Hello", &[])),
    }
}

impl Core {
    pub(super) fn must_lead(&self) -> Result<(), Status> {
        let leadership = self.consensus.leadership();
        if leadership.is_ready {
            return Ok(());
        }
        Err(failure(Failure::NotLeader { leader: leadership.leader }))
    }

    fn check_hello(&self, plant: &PlantId, hello: &v1::Hello) -> Result<(), Status> {
        let state = self.applied();
        if state.plants().get(plant).is_none() {
            return Err(refused(&Refusal::unknown("plant_id", plant)));
        }
        for machine in &hello.machines {
            let id = MachineId::parse(&machine.machine_id).map_err(|r| refused(&r))?;
            if state.stations().get(&id).is_none_or(|s| s.machine.plant != *plant) {
                return Err(refused(&Refusal::unknown("machines.machine_id", &id)));
            }
        }
        self.check_clock(hello.clock_ms)
    }

    fn check_clock(&self, clock_ms: i64) -> Result<(), Status> {
        let now_ms = self.clock.now_ms();
        let off_ms = clock_ms.saturating_sub(now_ms);
        let most_ms = self.clock.stretch_s(CLOCK_SKEW_MAX) * 1000;
        if off_ms.unsigned_abs() > most_ms.unsigned_abs() {
            return Err(failed(
                Code::FailedPrecondition,
                reasons::CLOCK_SKEW,
                format!("the agent's clock is {} s off; set it, e.g. by NTP", off_ms / 1000),
                &[
                    ("field", "clock_ms".into()),
                    ("value", clock_ms.to_string()),
                    ("accepted", format!("within {most_ms} ms of {now_ms}")),
                ],
            ));
        }
        Ok(())
    }
}

/// The events that a message adds to so many that wait, if it says nothing else and all have room in one entry.
fn joining(message: v1::AgentMessage, waiting: usize) -> Result<Vec<v1::AgentEvent>, Box<v1::AgentMessage>> {
    match message.body {
        Some(agent_message::Body::Events(more)) if waiting + more.events.len() <= EVENTS_MAX => {
            Ok(more.events)
        }
        body => Err(Box::new(v1::AgentMessage { body })),
    }
}

/// What an agent says.
struct Incoming {
    stream: Streaming<v1::AgentMessage>,
    /// Taken from the stream and not yet given.
    ahead: Option<Result<Option<v1::AgentMessage>, Status>>,
}

impl Incoming {
    async fn next(&mut self) -> Result<Option<v1::AgentMessage>, Status> {
        match self.ahead.take() {
            Some(message) => message,
            None => self.stream.message().await,
        }
    }

    /// Adds the events that are here already, so that one entry of the log takes them all: an agent that reports
    /// while its last report is on its way does not queue up behind it, message after message.
    fn gather(&mut self, events: &mut Vec<v1::AgentEvent>) {
        while self.ahead.is_none() {
            match self.stream.message().now_or_never() {
                Some(Ok(Some(message))) => match joining(message, events.len()) {
                    Ok(more) => events.extend(more),
                    Err(other) => self.ahead = Some(Ok(Some(*other))),
                },
                Some(other) => self.ahead = Some(other),
                None => return,
            }
        }
    }
}

struct Session {
    core: Core,
    caller: Caller,
    plant: PlantId,
    outbox: String,
    applied_seq: u64,
    /// The list that was sent last, while the agent has not said that it is kept.
    unkept: Option<Unkept>,
    /// The agent's clock as it was last heard, ms since the Unix epoch.
    echo_ms: i64,
    remote: Remote,
    /// When the last report went to the log.
    reported: Instant,
    seat: Seat,
}

/// What of remote operation was sent on this connection.
#[derive(Default)]
struct Remote {
    /// None before the first.
    sessions: Option<Vec<v1::RemoteSession>>,
    /// Of each session that is open, the highest number that was asked.
    asked: BTreeMap<u64, u32>,
}

/// A list that is not yet said to be on the agent's disk.
struct Unkept {
    revision: u64,
    /// When the plant began to work from an older one.
    since: Instant,
    /// The operator knows.
    told: bool,
}

impl Session {
    async fn run(mut self, mut incoming: Incoming, writer: Writer<v1::CoordinatorMessage>) {
        if let Err(Some(status)) = self.serve(&mut incoming, &writer).await {
            tracing::info!(plant = %self.plant, caller = %self.caller.id, %status, "agent's session ends");
            writer.end(status).await;
        }
    }

    /// Until the agent goes (None) or has to be told to (a status).
    async fn serve(
        &mut self,
        incoming: &mut Incoming,
        writer: &Writer<v1::CoordinatorMessage>,
    ) -> Result<(), Option<Status>> {
        let welcome = v1::Welcome {
            cluster_id: self.core.consensus.cluster_id().to_owned(),
            applied_seq: self.applied_seq,
        };
        self.send(writer, coordinator_message::Body::Welcome(welcome)).await?;
        let mut listed = self.send_list(writer, None).await?;
        self.send_remote(writer).await?;
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        let mut heard = Instant::now();
        // Events that wait for their turn.
        let mut events = Vec::new();
        loop {
            let apart = if may_wait(&events) { REPORTS_APART } else { Duration::ZERO };
            let due = self.reported + apart;
            tokio::select! {
                // What is for the plant goes first: a remote command has little time.
                biased;
                alive = self.seat.rung() => {
                    if !alive {
                        return Err(Some(failure(Failure::Stopped)));
                    }
                    listed = self.send_list(writer, listed).await?;
                    self.send_remote(writer).await?;
                }
                _ = heartbeat.tick() => {
                    self.core.must_lead()?;
                    if heard.elapsed() > SILENCE_MAX {
                        return Err(Some(Status::deadline_exceeded("no sign of life from the agent")));
                    }
                    self.tell_unkept();
                    let beat =
                        v1::Heartbeat { clock_ms: self.core.clock.now_ms(), echo_ms: self.echo_ms };
                    self.send(writer, coordinator_message::Body::Heartbeat(beat)).await?;
                    // What time alone changes: work freezes, a session's window ends.
                    listed = self.send_list(writer, listed).await?;
                    self.send_remote(writer).await?;
                }
                () = tokio::time::sleep_until(due), if !events.is_empty() => {
                    incoming.gather(&mut events);
                    self.reported = Instant::now();
                    self.report(std::mem::take(&mut events), writer).await?;
                }
                // While none of them presses, more may come.
                message = incoming.next(), if may_wait(&events) => {
                    heard = Instant::now();
                    let Ok(Some(message)) = message else { return Err(None) };
                    match joining(message, events.len()) {
                        Ok(more) => events.extend(more),
                        Err(message) => {
                            // What was said before goes before.
                            if !events.is_empty() {
                                self.report(std::mem::take(&mut events), writer).await?;
                            }
                            events = self.receive(*message)?;
                        }
                    }
                }
            }
        }
    }

    async fn send(
        &self,
        writer: &Writer<v1::CoordinatorMessage>,
        body: coordinator_message::Body,
    ) -> Result<(), Option<Status>> {
        let message = v1::CoordinatorMessage { body: Some(body) };
        writer.send(message, 0).await.map_err(|Gone| None)
    }

    /// Sends the plant's dispatch list if it differs from the one sent last.
    async fn send_list(
        &mut self,
        writer: &Writer<v1::CoordinatorMessage>,
        last: Option<Vec<v1::DispatchItem>>,
    ) -> Result<Option<Vec<v1::DispatchItem>>, Option<Status>> {
        let list = {
            let state = self.core.applied().as_of(self.core.clock.now_s());
            wire::dispatch_list(&state, &self.plant)
        };
        if last.as_ref() == Some(&list.items) {
            return Ok(last);
        }
        let items = list.items.clone();
        let (since, told) =
            self.unkept.take().map_or((Instant::now(), false), |older| (older.since, older.told));
        self.unkept = Some(Unkept { revision: list.revision, since, told });
        self.send(writer, coordinator_message::Body::DispatchList(list)).await?;
        Ok(Some(items))
    }

    /// Sends the plant's open sessions if they differ from those sent last, and what is asked in them. What is not
    /// sent before its time is up is sent to nobody.
    async fn send_remote(&mut self, writer: &Writer<v1::CoordinatorMessage>) -> Result<(), Option<Status>> {
        let (now, open) = {
            let state = self.core.applied().as_of(self.core.clock.now_s());
            let open = state.open_sessions_of(&self.plant).filter(|s| s.closes_at > state.now());
            (state.now(), open.cloned().collect::<Vec<_>>())
        };
        let sessions: Vec<_> = open.iter().map(|session| remote::agents_session(session)).collect();
        if self.remote.sessions.as_ref() != Some(&sessions) {
            self.remote.sessions = Some(sessions.clone());
            self.remote.asked.retain(|epoch, _| sessions.iter().any(|session| session.epoch == *epoch));
            let body = coordinator_message::Body::RemoteSessions(v1::RemoteSessions { sessions });
            self.send(writer, body).await?;
        }
        for session in &open {
            let asked = self.remote.asked.entry(session.id.number()).or_default();
            let before = std::mem::replace(asked, session.commands.len() as u32);
            let new = session.commands.iter().zip(1..).skip(before as usize);
            let fresh = new.filter(|(c, _)| c.outcome.is_none() && now <= c.asked_at + c.valid_s);
            for (command, nonce) in fresh {
                let asked = v1::RemoteAsked {
                    session: Some(remote::agents_session(session)),
                    command: Some(remote::command(command, nonce)),
                    echo_ms: self.echo_ms,
                };
                self.send(writer, coordinator_message::Body::RemoteAsked(asked)).await?;
            }
        }
        Ok(())
    }

    /// A plant that cannot keep its list works on from an older one, and cannot be told otherwise: somebody
    /// should look.
    fn tell_unkept(&mut self) {
        let Some(unkept) = self.unkept.as_mut().filter(|u| !u.told && u.since.elapsed() > SILENCE_MAX) else {
            return;
        };
        unkept.told = true;
        metrics::counter!("millpool_lists_unkept_total").increment(1);
        tracing::warn!(plant = %self.plant, revision = unkept.revision,
            "the agent has not kept its dispatch list; the plant works on from an older one");
    }

    /// A list is kept. Where it is not the newest, the plant does keep lists, and has a while for the next.
    fn kept(&mut self, revision: u64) {
        match &mut self.unkept {
            Some(unkept) if revision < unkept.revision => unkept.since = Instant::now(),
            _ => self.unkept = None,
        }
    }

    /// Takes a message in; answers with the events that are to be reported.
    fn receive(&mut self, message: v1::AgentMessage) -> Result<Vec<v1::AgentEvent>, Option<Status>> {
        match message.body {
            Some(agent_message::Body::Events(v1::AgentEvents { events })) => Ok(events),
            Some(agent_message::Body::DispatchKept(kept)) => {
                self.kept(kept.revision);
                Ok(Vec::new())
            }
            Some(agent_message::Body::Heartbeat(beat)) => {
                self.echo_ms = beat.clock_ms;
                self.core.check_clock(beat.clock_ms).map_err(Some)?;
                Ok(Vec::new())
            }
            Some(agent_message::Body::Hello(_)) | None => Err(Some(failed(
                Code::InvalidArgument,
                reasons::OUT_OF_ORDER,
                "after Hello come events, DispatchKept and heartbeats",
                &[],
            ))),
        }
    }

    /// Holes in the evidence are for people: no plan depends on them.
    fn tell_gaps(&self, events: &[v1::AgentEvent]) {
        for event in events.iter().filter(|event| event.seq > self.applied_seq) {
            let Some(agent_event::What::EvidenceGap(gap)) = &event.what else { continue };
            metrics::counter!("millpool_evidence_gaps_total").increment(1);
            tracing::warn!(plant = %self.plant, machine = event.machine_id, from_ms = gap.from_ms,
                until_ms = gap.until_ms, reason = gap.reason, "a gap in the evidence");
        }
    }

    /// Puts events into the log and acknowledges them.
    async fn report(
        &mut self,
        events: Vec<v1::AgentEvent>,
        writer: &Writer<v1::CoordinatorMessage>,
    ) -> Result<(), Option<Status>> {
        let read = |events: Vec<v1::AgentEvent>| -> Result<Vec<Event>, Refusal> {
            if events.len() > EVENTS_MAX {
                return Err(Refusal::invalid(
                    Reason::InvalidField,
                    "events (count)",
                    events.len(),
                    &format!("at most {EVENTS_MAX}"),
                ));
            }
            events.into_iter().map(wire::read_event).collect()
        };
        self.tell_gaps(&events);
        let events = read(events).map_err(|r| Some(refused(&r)))?;
        let count = events.len() as u64;
        let command = Command::Report { plant: self.plant.clone(), outbox: self.outbox.clone(), events };
        let outcome =
            self.core.planner.execute(operator(), None, command).await.map_err(|f| Some(failure(f)))?;
        let Ok(Reply::Applied(seq, refused)) = &outcome.result else {
            return Err(Some(Status::internal("a report was answered with something else")));
        };
        self.applied_seq = *seq;
        metrics::counter!("millpool_agent_events_total").increment(count);
        let refused = refused
            .iter()
            .map(|(seq, reason)| v1::RefusedEvent { seq: *seq, reason: reason.clone() })
            .collect();
        let applied = v1::EventsApplied { seq: *seq, refused };
        self.send(writer, coordinator_message::Body::EventsApplied(applied)).await
    }
}
