//! Buyers: they quote, book, confirm, cancel and look, through the shipped client library, and write down what they
//! were answered.

use crate::history::{Answer, Call, Operation, Told, Watched};
use crate::network::client_channel;
use crate::world::{Shared, clock, name};
use millpool_cli::client::{Client, ClientOptions, WatchEvent};
use millpool_proto::v1;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::time::Duration;

/// Longest pause between two calls of a buyer.
const PAUSE_MAX_MS: u64 = 400;
/// Calls that succeed after the faults are over, before a buyer goes home.
const CALLS_AFTERWARDS: u32 = 4;
/// Machines of the simulated alliance.
pub const MACHINES: u32 = 5;
const FAMILIES: [&str; 3] = ["a", "b", "c"];
/// What is asked of machines.
const VERBS: [v1::RemoteVerb; 3] = [v1::RemoteVerb::Store, v1::RemoteVerb::Start, v1::RemoteVerb::Pause];

/// A client of all nodes that says it is `token`.
pub fn client(token: &str, seed: u64, nodes: usize) -> anyhow::Result<Client> {
    let hosts: Vec<String> = (0..nodes).map(name).collect();
    let channels = hosts.iter().map(|host| client_channel(host)).collect::<anyhow::Result<Vec<_>>>()?;
    let options = ClientOptions {
        endpoints: (0..nodes).map(|index| crate::node::member(index).public_address).collect(),
        token: Some(token.to_owned()),
        attempt_timeout: Duration::from_secs(2),
        deadline: Duration::from_secs(8),
        watch_silence_max: Duration::from_secs(12),
        seed: Some(seed),
        ..ClientOptions::default()
    };
    Ok(Client::with_channels(options, channels)?)
}

/// A buyer at work.
struct Buyer {
    world: Shared,
    who: String,
    client: Client,
    random: StdRng,
    /// What it has booked and knows of.
    mine: Vec<String>,
    /// The newest revision that it has seen.
    seen: u64,
    /// The request id of its last booking: now and then it is used again for another order, which must be refused.
    used: Option<String>,
    orders: u32,
}

/// Works until the faults are over and it has been served again.
pub async fn run(world: Shared, who: String, seed: u64) -> turmoil::Result {
    while !world.borrow().founded {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let nodes = world.borrow().nodes.len();
    let client = client(&format!("buyer:{who}"), seed, nodes)?;
    let random = StdRng::seed_from_u64(seed);
    let mut buyer = Buyer { world, who, client, random, mine: Vec::new(), seen: 0, used: None, orders: 0 };
    let mut served = 0;
    while served < CALLS_AFTERWARDS {
        let healed = buyer.world.borrow().healed;
        let answer = buyer.call().await;
        served += u32::from(healed && matches!(answer, Answer::Done { .. } | Answer::Refused { .. }));
        let pause = Duration::from_millis(buyer.random.random_range(0..PAUSE_MAX_MS));
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

impl Buyer {
    fn scale(&self) -> i64 {
        self.world.borrow().scale
    }

    async fn call(&mut self) -> Answer {
        let one_of_mine = match self.mine.len() {
            0 => None,
            count => Some(self.mine[self.random.random_range(0..count)].clone()),
        };
        match (self.random.random_range(0..11), one_of_mine) {
            (0..=4, _) | (_, None) => self.book().await,
            (5, Some(booking)) => self.confirm(booking).await,
            (6, Some(booking)) => self.cancel(booking).await,
            (7, Some(booking)) => self.get(booking, Some(self.seen)).await,
            (8, _) => {
                let min_revision = self.random.random_bool(0.5).then_some(self.seen);
                self.quote(min_revision).await
            }
            (9, Some(booking)) => self.get(booking, None).await,
            (_, Some(booking)) => self.operate(booking).await,
        }
    }

    /// Begins a session for one of a booking's operations, asks something in it, and now and then ends it. The plants of
    /// this alliance refuse whatever is asked; it is on record all the same.
    async fn operate(&mut self, booking_id: String) -> Answer {
        let (began, request_id) = (turmoil::elapsed(), self.client.fresh_request_id());
        let operation = self.random.random_range(0..2);
        let request = v1::OpenSessionRequest { request_id: request_id.clone(), booking_id, operation };
        let answered = self.client.open_session(request).await;
        let session_id = answered.as_ref().ok().and_then(|answer| Some(answer.session.as_ref()?.id.clone()));
        let opened = Answer::of(answered.map(|answer| (answer.header, None)));
        let opened = self.note(began, Call::Operate { request_id }, opened);
        // Without agents nobody answers, and whoever asks waits for long.
        let Some(session_id) = session_id.filter(|_| self.scale() > 1) else { return opened };
        let verb = VERBS[self.random.random_range(0..VERBS.len())];
        let asked = v1::OperateRequest {
            request_id: self.client.fresh_request_id(),
            session_id: session_id.clone(),
            verb: verb.into(),
            valid_s: 30,
            ..v1::OperateRequest::default()
        };
        if let Ok(v1::OperateResponse { command: Some(command), .. }) = self.client.operate(asked).await {
            self.world.borrow_mut().history.asked.push((session_id.clone(), command));
        }
        if self.random.random_bool(0.5) {
            let (began, request_id) = (turmoil::elapsed(), self.client.fresh_request_id());
            let close = v1::CloseSessionRequest {
                request_id: request_id.clone(),
                session_id,
                because: String::new(),
            };
            let answered = self.client.close_session(close).await.map(|answer| (answer.header, None));
            self.note(began, Call::Operate { request_id }, Answer::of(answered));
        }
        opened
    }

    async fn book(&mut self) -> Answer {
        let used = self.used.take().filter(|_| self.random.random_bool(0.2));
        let request_id = used.unwrap_or_else(|| self.client.fresh_request_id());
        self.used = Some(request_id.clone());
        let order = self.order();
        let call = Call::Book { request_id: request_id.clone(), reference: order.reference.clone() };
        let request = v1::BookRequest {
            request_id,
            order: Some(order),
            hold_s: if self.random.random_bool(0.3) { 3 * self.scale() as u32 } else { 0 },
            ..Default::default()
        };
        let began = turmoil::elapsed();
        // Now and then the same request is on its way twice.
        let (client, same) = (self.client.clone(), request.clone());
        let twice = self.random.random_bool(0.1).then_some(async move { client.book(same).await });
        let answered = match twice {
            None => self.client.book(request).await,
            Some(other) => {
                let (one, other) = tokio::join!(self.client.book(request), other);
                self.note(began, call.clone(), book_answer(other));
                one
            }
        };
        let answer = book_answer(answered);
        if let Answer::Done { booking: Some(booking), .. } = &answer {
            self.mine.push(booking.id.clone());
        }
        self.note(began, call, answer)
    }

    async fn confirm(&mut self, booking: String) -> Answer {
        let request_id = self.client.fresh_request_id();
        let began = turmoil::elapsed();
        let request =
            v1::ConfirmBookingRequest { request_id: request_id.clone(), booking_id: booking.clone() };
        let answered = self.client.confirm_booking(request).await.map(|a| (a.header, a.booking));
        self.note(began, Call::Confirm { request_id, booking }, Answer::of(answered))
    }

    async fn cancel(&mut self, booking: String) -> Answer {
        let request_id = self.client.fresh_request_id();
        let began = turmoil::elapsed();
        let request = v1::CancelBookingRequest {
            request_id: request_id.clone(),
            booking_id: booking.clone(),
            reason: String::new(),
        };
        let answered = self.client.cancel_booking(request).await.map(|a| (a.header, a.booking));
        self.note(began, Call::Cancel { request_id, booking }, Answer::of(answered))
    }

    async fn get(&mut self, booking: String, min_revision: Option<u64>) -> Answer {
        let began = turmoil::elapsed();
        let consistency = min_revision.map(no_older_than);
        let request = v1::GetBookingRequest { booking_id: booking.clone(), consistency };
        let answered = self.client.get_booking(request).await.map(|a| (a.header, a.booking));
        let call = match min_revision {
            Some(min_revision) => Call::GetStale { booking, min_revision },
            None => Call::Get { booking },
        };
        self.note(began, call, Answer::of(answered))
    }

    async fn quote(&mut self, min_revision: Option<u64>) -> Answer {
        let began = turmoil::elapsed();
        let consistency = min_revision.map(no_older_than);
        let request = v1::QuoteRequest { order: Some(self.order()), consistency };
        let answered = self.client.quote(request).await.map(|a| (a.header, None));
        let call = match min_revision {
            Some(min_revision) => Call::QuoteStale { min_revision },
            None => Call::Quote,
        };
        self.note(began, call, Answer::of(answered))
    }

    fn note(&mut self, began: Duration, call: Call, answer: Answer) -> Answer {
        if let Answer::Done { revision, .. } = answer {
            self.seen = self.seen.max(revision);
        }
        let ended = turmoil::elapsed();
        let operation = Operation { who: self.who.clone(), call, began, ended, answer: answer.clone() };
        self.world.borrow_mut().history.operations.push(operation);
        answer
    }

    /// One to three operations on the alliance's mills.
    fn order(&mut self) -> v1::Order {
        self.orders += 1;
        let operations = self.random.random_range(1..=3);
        // Where there are agents the work is to be done while it storms.
        let (shortest, longest) = if self.scale() > 1 { (5, 40) } else { (5, 120) };
        let operation = |random: &mut StdRng| v1::Operation {
            class: v1::MachineClass::Mill.into(),
            setup_family: FAMILIES[random.random_range(0..FAMILIES.len())].into(),
            setup_s: random.random_range(0..longest / 5) * 60,
            run_s_per_piece: random.random_range(shortest..longest) * 60,
            splittable: random.random_bool(0.4),
            ..Default::default()
        };
        v1::Order {
            reference: format!("{}-{}", self.who, self.orders),
            quantity: self.random.random_range(1..4),
            material: "steel".into(),
            size: Some(v1::Size { x_mm: 100, y_mm: 100, z_mm: 100 }),
            mass_g: 1000,
            route: (0..operations).map(|_| operation(&mut self.random)).collect(),
            due_s: clock::now_s(self.scale()) + self.random.random_range(1..4) * 86_400,
            ..Default::default()
        }
    }
}

/// As the answering node knows it, but nothing older than a revision.
fn no_older_than(min_revision: u64) -> v1::Consistency {
    v1::Consistency { serializable: true, min_revision }
}

fn book_answer(answered: Result<v1::BookResponse, millpool_cli::client::ClientError>) -> Answer {
    Answer::of(answered.map(|answer| (answer.header, answer.booking)))
}

/// How many watch.
pub const WATCHERS: usize = 2;

/// The name of one who watches.
pub fn watcher(at: usize) -> String {
    format!("w{at}")
}

/// Follows all bookings, and writes down what it is told.
pub async fn watch(world: Shared, who: String, seed: u64) -> turmoil::Result {
    while !world.borrow().founded {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let nodes = world.borrow().nodes.len();
    let client = client("operator:watcher", seed, nodes)?;
    let mut watch = client.watch_bookings(v1::WatchBookingsRequest::default());
    let mut watched: Option<Watched> = None;
    let mut part: Vec<v1::Booking> = Vec::new();
    loop {
        match watch.next().await {
            Ok(WatchEvent::Changed(answer)) => {
                let revision = answer.header.map_or(0, |header| header.revision);
                part.extend(answer.bookings);
                if answer.continued {
                    continue;
                }
                let bookings = std::mem::take(&mut part);
                let watched = watched.get_or_insert_with(|| Watched {
                    // The first message is the present; all that follows is a change.
                    who: who.clone(),
                    listed: bookings.iter().map(|b| (b.id.clone(), b.revision)).collect(),
                    after: revision,
                    until: revision,
                    told: Vec::new(),
                });
                watched.until = watched.until.max(revision);
                if !bookings.is_empty() && revision > watched.after {
                    watched.told.push(Told { revision, bookings });
                }
                keep(&world, watched);
            }
            Ok(WatchEvent::Compacted { .. }) => {
                watched = None;
                part.clear();
            }
            Ok(WatchEvent::Cut(_)) => part.clear(),
            Ok(WatchEvent::Resumed { .. }) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// The newest of a watch replaces what it said before.
fn keep(world: &Shared, watched: &Watched) {
    let all = &mut world.borrow_mut().history.watched;
    match all.iter_mut().find(|w| w.who == watched.who && w.after == watched.after) {
        Some(older) => older.clone_from(watched),
        None => all.push(watched.clone()),
    }
}
