//! What a buyer does, from quote to cancellation; what followers answer; how the plan gets better.

use crate::harness::*;
use millpool_proto::v1::{self, BookingStatus, Objective, OperationState};
use tonic::Code;

fn quote(order: v1::Order) -> v1::QuoteRequest {
    v1::QuoteRequest { order: Some(order), consistency: None }
}

fn list() -> v1::ListBookingsRequest {
    v1::ListBookingsRequest::default()
}

fn confirm(booking_id: &str) -> v1::ConfirmBookingRequest {
    v1::ConfirmBookingRequest { request_id: fresh(), booking_id: booking_id.into() }
}

fn cancel(booking_id: &str) -> v1::CancelBookingRequest {
    v1::CancelBookingRequest { request_id: fresh(), booking_id: booking_id.into(), reason: "changed".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_forgotten_though_nobody_asks_for_anything() {
    // A minute of the alliance passes in a second.
    let epoch_ms = (now_s() * 1000).to_string();
    let cluster = Cluster::with(1, &[("clock-scale", "60"), ("clock-epoch-ms", &epoch_ms)]).await;
    let operator = cluster.operator(0);
    found_alliance(&operator).await;
    let risen = || async { cluster.status(0).await.filter(|status| status.format == status.format_max) };
    eventually("the format to rise", risen).await;
    let known = operator.admin().get_policy(v1::GetPolicyRequest::default()).await.unwrap().into_inner();
    let known = known.policy.unwrap();
    let expected_revision = known.revision;
    let policy = Some(v1::Policy { history_keep_s: 60, ..known });
    let request = v1::PutPolicyRequest { request_id: fresh(), policy, expected_revision };
    operator.admin().put_policy(request).await.unwrap();

    let bo = cluster.client(0, "buyer:bo");
    let (given_up, open) =
        (bo.book(order(vec![operation("a", 60)])).await, bo.book(order(vec![operation("a", 60)])).await);
    bo.booking().cancel_booking(cancel(&given_up.id)).await.unwrap();
    assert_eq!(bo.get(&given_up.id).await.unwrap().status(), BookingStatus::Cancelled);
    let forgotten = || async { bo.get(&given_up.id).await.err() };
    let refusal = eventually("a booking to be forgotten", forgotten).await;
    assert_eq!(refusal.code(), Code::NotFound);
    assert!(refusal.message().contains("history_keep_s"), "{refusal:?}");
    assert_eq!(bo.get(&open.id).await.unwrap().status(), BookingStatus::Confirmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_quotes_holds_confirms_follows_and_cancels() {
    let cluster = Cluster::start(1).await;
    found_alliance(&cluster.operator(0)).await;
    let bo = cluster.client(0, "buyer:bo");

    let wanted = order(vec![operation("a", 60), operation("b", 30)]);
    let quoted = bo.booking().quote(quote(wanted.clone())).await.unwrap().into_inner();
    assert!(!quoted.options.is_empty());
    let best_for = |o: Objective| quoted.options.iter().find(|p| p.best_for.contains(&o.into())).unwrap();
    let fastest = best_for(Objective::Fastest);
    let cheapest = best_for(Objective::Cheapest);
    best_for(Objective::Greenest);
    assert!(fastest.completes_at_s <= cheapest.completes_at_s);
    assert!(fastest.promised_by_s >= fastest.completes_at_s);
    assert!(fastest.valid_until_s > now_s());

    // Held as quoted, at the price that was quoted.
    let request = v1::BookRequest {
        request_id: fresh(),
        order: Some(wanted.clone()),
        option: Some(cheapest.clone()),
        hold_s: 600,
        ..Default::default()
    };
    let first = bo.booking().book(request.clone()).await.unwrap().into_inner();
    let held = first.booking.clone().unwrap();
    assert_eq!(held.status(), BookingStatus::Held);
    assert_eq!(held.buyer, "bo");
    let places = |of: &[v1::Assignment]| -> Vec<(String, i64, i64)> {
        of.iter().map(|a| (a.machine_id.clone(), a.start_s, a.end_s)).collect()
    };
    assert_eq!(places(&held.assignments), places(&cheapest.assignments));
    assert_eq!(held.promise.as_ref().unwrap().price, cheapest.price);
    assert!(held.promise.as_ref().unwrap().by_s <= cheapest.promised_by_s);

    // The same request again is the same booking, revision and all.
    let again = bo.booking().book(request).await.unwrap().into_inner();
    assert_eq!(again, first);

    let confirmed = bo.booking().confirm_booking(confirm(&held.id)).await.unwrap().into_inner();
    assert_eq!(confirmed.booking.as_ref().unwrap().status(), BookingStatus::Confirmed);
    assert_eq!(bo.get(&held.id).await.unwrap(), confirmed.booking.unwrap());

    // Others see nothing of it.
    let li = cluster.client(0, "buyer:li");
    assert_eq!(li.get(&held.id).await.unwrap_err().code(), Code::NotFound);
    assert!(li.booking().list_bookings(list()).await.unwrap().into_inner().bookings.is_empty());
    let all = bo.booking().list_bookings(list()).await.unwrap().into_inner().bookings;
    assert_eq!(all.iter().map(|b| b.id.as_str()).collect::<Vec<_>>(), [held.id.as_str()]);
    let plan = |client: Client| async move {
        client.plan().get_plan(v1::GetPlanRequest::default()).await.unwrap().into_inner()
    };
    let named = |plan: &v1::GetPlanResponse| plan.entries.iter().filter(|e| e.booking_id == held.id).count();
    assert_eq!(named(&plan(bo.clone()).await), 2);
    assert!(plan(li).await.entries.is_empty());
    let acme = plan(cluster.client(0, "member:acme")).await;
    let beta = plan(cluster.client(0, "member:beta")).await;
    assert_eq!(named(&acme) + named(&beta), 2, "each member sees what is made on its own machines");
    assert_eq!(named(&plan(cluster.operator(0)).await), 2);

    // Why, and a question about what was never booked.
    let why = v1::ExplainRequest { booking_id: held.id.clone(), order: None };
    assert!(!bo.plan().explain(why).await.unwrap().into_inner().reasons.is_empty());

    let cancelled = bo.booking().cancel_booking(cancel(&held.id)).await.unwrap().into_inner();
    assert_eq!(cancelled.booking.unwrap().status(), BookingStatus::Cancelled);
    assert!(plan(cluster.operator(0)).await.entries.is_empty());
    let twice = bo.booking().cancel_booking(cancel(&held.id)).await.unwrap_err();
    assert_eq!(said(&twice).reason, "WRONG_STATUS");
}

/// The revisions in answers are those of the log, so that they can be sent back as `expected_revision`.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_can_be_changed_with_the_revision_that_the_answer_named() {
    let cluster = Cluster::start(1).await;
    let op = cluster.operator(0);
    let mut member = op.capacity().put_member(put_member("acme")).await.unwrap().into_inner().member.unwrap();
    for name in ["Acme & Co", "Acme & Sons"] {
        let request = v1::PutMemberRequest {
            request_id: fresh(),
            expected_revision: member.revision,
            member: Some(v1::Member { name: name.into(), ..member.clone() }),
        };
        let stored = op.capacity().put_member(request).await.unwrap().into_inner();
        assert_eq!(stored.header.unwrap().revision, stored.member.as_ref().unwrap().revision);
        member = stored.member.unwrap();
    }
    let old =
        v1::PutMemberRequest { request_id: fresh(), member: Some(member.clone()), expected_revision: 1 };
    assert_eq!(said(&op.capacity().put_member(old).await.unwrap_err()).reason, "REVISION_MISMATCH");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_has_expired_gives_its_time_back_and_cannot_be_confirmed() {
    let cluster = Cluster::start(1).await;
    found_alliance(&cluster.operator(0)).await;
    let bo = cluster.client(0, "buyer:bo");
    let request = v1::BookRequest {
        request_id: fresh(),
        order: Some(order(vec![operation("a", 60)])),
        hold_s: 1,
        ..Default::default()
    };
    let held = bo.booking().book(request).await.unwrap().into_inner().booking.unwrap();
    // Nobody asks for anything: the node lets it expire by itself.
    let expired = eventually("the hold to expire", || async {
        bo.get(&held.id).await.ok().filter(|b| b.status() == BookingStatus::Expired)
    });
    assert!(expired.await.assignments.is_empty());
    let late = bo.booking().confirm_booking(confirm(&held.id)).await.unwrap_err();
    assert_eq!(said(&late).reason, "HOLD_EXPIRED");
    let next = bo.book(order(vec![operation("a", 60)])).await;
    assert!(next.completes_at_s <= held.completes_at_s + 120, "its time is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_pass_writes_on_read_what_was_written_and_let_watchers_go_on() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (near, far) = ((leader + 1) % 3, (leader + 2) % 3);
    found_alliance(&cluster.operator(near)).await;
    let bo = cluster.client(near, "buyer:bo");
    let watch = |start_revision| v1::WatchBookingsRequest { start_revision, booking_id: String::new() };
    let mut watching = bo.booking().watch_bookings(watch(0)).await.unwrap().into_inner();
    assert!(watching.message().await.unwrap().unwrap().bookings.is_empty(), "the present: nothing");

    // A default read on another follower holds what was acknowledged through this one.
    let mut booked = Vec::new();
    for _ in 0..10 {
        let booking = bo.book(order(vec![operation("a", 30)])).await;
        for index in [far, near, leader] {
            assert_eq!(cluster.client(index, "buyer:bo").get(&booking.id).await.unwrap(), booking);
        }
        booked.push(booking);
    }
    let mut last = 0;
    for booking in &booked {
        let told = watching.message().await.unwrap().unwrap();
        last = told.header.as_ref().unwrap().revision;
        assert_eq!(told.bookings, std::slice::from_ref(booking));
    }

    // Cut off after the fifth, the watcher goes on from there on another node and misses nothing.
    let elsewhere = cluster.client(far, "buyer:bo");
    let mut resumed =
        elsewhere.booking().watch_bookings(watch(booked[4].revision + 1)).await.unwrap().into_inner();
    for booking in &booked[5..] {
        assert_eq!(resumed.message().await.unwrap().unwrap().bookings, std::slice::from_ref(booking));
    }
    drop(resumed);

    // A stale read waits for the revision that it names.
    let consistency = Some(v1::Consistency { serializable: true, min_revision: last });
    let request = v1::GetBookingRequest { booking_id: booked[9].id.clone(), consistency };
    let stale = elsewhere.booking().get_booking(request).await.unwrap().into_inner();
    assert_eq!(stale.booking.unwrap(), booked[9]);
    assert!(stale.header.unwrap().revision >= last);

    // A node that was started anew keeps only what came after: it says from where on.
    assert!(cluster.terminate(far).await.success());
    let meanwhile = bo.book(order(vec![operation("a", 30)])).await;
    cluster.start_node(far);
    let refused = eventually("the node to be back", || async {
        match elsewhere.booking().watch_bookings(watch(1)).await {
            Err(status) if status.code() != Code::Unavailable => Some(status),
            _ => None,
        }
    });
    let refused = said(&refused.await);
    assert_eq!((refused.code, refused.reason.as_str()), (Code::OutOfRange, "COMPACTED"));
    let oldest: u64 = refused.metadata["compacted_revision"].parse().unwrap();
    let mut watching = elsewhere.booking().watch_bookings(watch(oldest)).await.unwrap().into_inner();
    let after = bo.book(order(vec![operation("a", 30)])).await;
    let mut seen = Vec::new();
    while !seen.contains(&after.id) {
        seen.extend(watching.message().await.unwrap().unwrap().bookings.into_iter().map(|b| b.id));
    }
    assert!(oldest > meanwhile.revision || seen.contains(&meanwhile.id), "{oldest}: {seen:?}");
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_background_makes_the_plan_cheaper_and_says_how_near_to_the_best_it_is() {
    let settings = [("optimise-for-ms", "700"), ("optimise-every-ms", "300")];
    let cluster = Cluster::with(1, &settings).await;
    let op = cluster.operator(0);
    op.capacity().put_member(put_member("acme")).await.unwrap();
    op.capacity().put_plant(put_plant(plant("p-1", "acme", 0))).await.unwrap();
    op.capacity().put_machine(put_machine(mill("mill-1", "p-1"))).await.unwrap();
    let open = offer("o-1", "mill-1", minutes(-60), minutes(20 * 24 * 60));
    op.capacity().create_offer(create_offer(open)).await.unwrap();
    change_policy(&op, |p| (p.freeze_s, p.lead_s) = (0, 0)).await;

    // Booked one after the other they alternate, and each costs a changeover.
    let bo = cluster.client(0, "buyer:bo");
    let mut booked = Vec::new();
    for family in ["a", "b", "c", "a", "b", "c", "a", "b", "c"] {
        booked.push(bo.book(order(vec![operation(family, 60)])).await);
    }
    let summary = || async {
        op.plan().get_plan(v1::GetPlanRequest::default()).await.unwrap().into_inner().summary.unwrap()
    };
    let found = eventually("an optimisation of all nine", || async {
        let summary = summary().await;
        let o = summary.last_optimisation?;
        let changeovers = summary.cost_fen - 9 * 36_000;
        (changeovers <= 4 * 9_000 && o.cost_fen == summary.cost_fen).then_some(o)
    });
    let found = found.await;
    assert!(found.bound_fen <= found.cost_fen && found.cost_fen <= found.cost_before_fen, "{found:?}");
    assert!(found.bound_fen >= 9 * 36_000, "the bound knows at least the work itself: {found:?}");
    for before in booked {
        let after = bo.get(&before.id).await.unwrap();
        assert_eq!(after.promise, before.promise);
        assert!(!after.at_risk && after.completes_at_s <= after.promise.unwrap().by_s);
    }

    // With nothing new to do it rests: the plan's revision stands still.
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    let rest = summary().await.revision;
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert_eq!(summary().await.revision, rest, "an unchanged plan is not optimised for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_made_from_start_to_end() {
    let cluster = Cluster::start(1).await;
    found_alliance(&cluster.operator(0)).await;
    let bo = cluster.client(0, "buyer:bo");
    let mut wanted = order(vec![operation("a", 60)]);
    wanted.excluded_plants = vec!["p-2".into()];
    let booking = bo.book(wanted).await;
    let machine = booking.assignments[0].machine_id.clone();
    let mut agent =
        crate::agents::Agent::attach(&cluster.client(0, "agent:p-1"), "p-1", "a-1", "box").await.unwrap();
    let list = agent.dispatch().await;
    assert_eq!(list.items.iter().map(|i| i.booking_id.as_str()).collect::<Vec<_>>(), [booking.id.as_str()]);
    agent.report(vec![crate::agents::started(1, &machine, &booking.id, 0)]).await;
    assert!(agent.applied().await.refused.is_empty());
    assert_eq!(bo.get(&booking.id).await.unwrap().assignments[0].state(), OperationState::Running);
    let begun = bo.booking().cancel_booking(cancel(&booking.id)).await.unwrap_err();
    assert_eq!(said(&begun).reason, "WRONG_STATUS", "what has begun is not cancelled");
    agent.report(vec![crate::agents::finished(2, &machine, &booking.id, 0)]).await;
    assert!(agent.applied().await.refused.is_empty());
    let done = bo.get(&booking.id).await.unwrap();
    assert_eq!(done.status(), BookingStatus::Completed);
    assert_eq!((done.assignments[0].pieces_good, done.assignments[0].energy_wh), (1, 777));
}

/// A quote that accepts what a node knows is answered by that node, leader or not, majority or not, on what it has
/// applied.
#[tokio::test(flavor = "multi_thread")]
async fn any_node_quotes_from_what_it_knows() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    found_alliance(&cluster.operator(leader)).await;
    let follower = (leader + 1) % 3;
    let bo = cluster.client(follower, "buyer:bo");
    let wanted = order(vec![operation("a", 60), operation("b", 30)]);
    let here = |min_revision| v1::QuoteRequest {
        order: Some(wanted.clone()),
        consistency: Some(v1::Consistency { serializable: true, min_revision }),
    };
    let places = |quote: &v1::QuoteResponse| -> Vec<_> {
        let of = |o: &v1::Option| (o.assignments.clone(), o.price, o.promised_by_s, o.best_for.clone());
        quote.options.iter().map(of).collect()
    };
    for round in 0..4 {
        let booked = bo.book(order(vec![operation("c", 45)])).await;
        if round == 2 {
            // What the pool does not see in its machines.
            change_policy(&cluster.operator(leader), |policy| policy.promise_slack_s += 3600).await;
        }
        cluster.agree().await;
        let led = bo.booking().quote(quote(wanted.clone())).await.unwrap().into_inner();
        let own = bo.booking().quote(here(booked.revision)).await.unwrap().into_inner();
        let header = own.header.clone().unwrap();
        assert_eq!(header.node_id, follower as u64 + 1);
        assert!(header.revision >= booked.revision);
        assert!(!own.options.is_empty());
        assert_eq!(places(&own), places(&led), "round {round}");
    }
    // Without a majority nobody leads, and it still answers.
    (0..3).filter(|index| *index != follower).for_each(|index| cluster.kill(index));
    assert!(!bo.booking().quote(here(0)).await.unwrap().into_inner().options.is_empty());
}
