//! Whole runs of the command against a fake cluster: what people read, what programs read, and how it
//! ends.

use crate::fake::pool::{Pool, bare};
use crate::fake::{Fault, sample};
use expect_test::expect;
use millpool_proto::v1::RemoteVerb;
use serde_json::Value;

const ORDER: [&str; 14] = [
    "--quantity",
    "20",
    "--material",
    "aluminium",
    "--size",
    "200x120x60",
    "--mass",
    "3kg",
    "--op",
    "five-axis family=F1 setup=20m run=6m tol=20",
    "--op",
    "cmm family=F2 run=90s",
    "--due",
    "+5d",
];

fn with_order<'a>(command: &[&'a str]) -> Vec<&'a str> {
    [command, &ORDER].concat()
}

#[tokio::test]
async fn quote_shows_options_and_how_to_book_one() {
    Pool::new().shows(&with_order(&["quote"]), expect![[r#"
        3 options for 20 × aluminium, 200 × 120 × 60 mm, 3 kg
        wanted by 2026-11-30 10:30+08:00 (in 5 d)

         #   BEST FOR   DONE                     AGAINST DUE      PROMISED BY                     PRICE     CARBON   MACHINES
        ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         1   fastest    2026-11-25 17:30+08:00   4 d 17 h early   2026-11-25 21:30+08:00   1,482.50 CNY   12.35 kg   dmu50-1 → zeiss-1
         2   greenest   2026-11-26 21:30+08:00   3 d 13 h early   2026-11-27 01:30+08:00   1,219.00 CNY    9.87 kg   dmu50-2 → zeiss-1
         3   cheapest   2026-11-30 17:30+08:00   7 h late         2026-11-30 21:30+08:00     994.00 CNY   11.02 kg   c400-1 → zeiss-1

        To book an option (or --cheapest, --fastest, --greenest; add --hold 2h to decide later):
          millpool book --quantity 20 --material aluminium --size 200x120x60 --mass 3kg --op 'five-axis family=F1 setup=20m run=6m tol=20' --op 'cmm family=F2 run=90s' --due +5d --option 1
    "#]]).await;
}

#[tokio::test]
async fn quote_in_detail() {
    let words = with_order(&["quote", "--details", "--utc"]);
    Pool::new().shows(&words, expect![[r#"
        3 options for 20 × aluminium, 200 × 120 × 60 mm, 3 kg
        wanted by 2026-11-30 02:30Z (in 5 d)

         #   BEST FOR   DONE                AGAINST DUE      PROMISED BY                PRICE     CARBON   MACHINES
        ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         1   fastest    2026-11-25 09:30Z   4 d 17 h early   2026-11-25 13:30Z   1,482.50 CNY   12.35 kg   dmu50-1 → zeiss-1
         2   greenest   2026-11-26 13:30Z   3 d 13 h early   2026-11-26 17:30Z   1,219.00 CNY    9.87 kg   dmu50-2 → zeiss-1
         3   cheapest   2026-11-30 09:30Z   7 h late         2026-11-30 13:30Z     994.00 CNY   11.02 kg   c400-1 → zeiss-1

        Option 1
          price         1,482.50 CNY = 1,242.50 processing + 180.00 setup + 60.00 transport
          carbon        12.35 kg CO2e = 11.55 kg machines + 0.80 kg transport; 24.69 kWh modelled, grid factors CN-CQ/2022
          stands until  2026-11-25 02:45Z

         OP   CLASS       MACHINE   PLANT     START               END                       TIME   CHANGEOVER
        ──────────────────────────────────────────────────────────────────────────────────────────────────────
         0    five-axis   dmu50-1   yubei-2   2026-11-25 04:30Z   2026-11-25 07:20Z   2 h 50 min       30 min
         1    cmm         zeiss-1   yubei-2   2026-11-25 08:30Z   2026-11-25 09:30Z          1 h       30 min

        Option 2
          price         1,219.00 CNY = 979.00 processing + 180.00 setup + 60.00 transport
          carbon        9.87 kg CO2e = 9.07 kg machines + 0.80 kg transport; 19.74 kWh modelled, grid factors CN-CQ/2022
          stands until  2026-11-25 02:45Z

         OP   CLASS       MACHINE   PLANT     START               END                       TIME   CHANGEOVER
        ──────────────────────────────────────────────────────────────────────────────────────────────────────
         0    five-axis   dmu50-2   yubei-2   2026-11-26 08:30Z   2026-11-26 11:20Z   2 h 50 min       30 min
         1    cmm         zeiss-1   yubei-2   2026-11-26 12:30Z   2026-11-26 13:30Z          1 h       30 min

        Option 3
          price         994.00 CNY = 754.00 processing + 180.00 setup + 60.00 transport
          carbon        11.02 kg CO2e = 10.22 kg machines + 0.80 kg transport; 22.04 kWh modelled, grid factors CN-CQ/2022
          stands until  2026-11-25 02:45Z

         OP   CLASS       MACHINE   PLANT     START               END                       TIME   CHANGEOVER
        ──────────────────────────────────────────────────────────────────────────────────────────────────────
         0    five-axis   c400-1    yubei-2   2026-11-30 04:30Z   2026-11-30 07:20Z   2 h 50 min       30 min
         1    cmm         zeiss-1   yubei-2   2026-11-30 08:30Z   2026-11-30 09:30Z          1 h       30 min

        To book an option (or --cheapest, --fastest, --greenest; add --hold 2h to decide later):
          millpool book --utc --quantity 20 --material aluminium --size 200x120x60 --mass 3kg --op 'five-axis family=F1 setup=20m run=6m tol=20' --op 'cmm family=F2 run=90s' --due +5d --option 1
    "#]]).await;
}

#[tokio::test]
async fn a_quote_without_options_says_why() {
    let pool = Pool::new();
    {
        let mut state = pool.cluster.state.lock().unwrap();
        state.options.clear();
        state.obstacles = sample::obstacles();
    }
    let ran = pool.run(&with_order(&["quote"])).await;
    assert_eq!(ran.exit_code, 1);
    expect![[r#"
        Nothing in the pool fits 20 × aluminium, 200 × 120 × 60 mm, 3 kg.

         OP   REQUIREMENT    ASKED   THE POOL HAS   EXCLUDES
        ────────────────────────────────────────────────────────────
         0    tolerance_um   3       5              4 of 4 machines
    "#]]
    .assert_eq(&(ran.answers + &ran.notices));
}

#[tokio::test]
async fn book_shows_the_promise() {
    Pool::new().shows(&with_order(&["book", "--cheapest", "--at-most", "5000"]), expect![[r#"
        B000001  confirmed
          order          20 × aluminium, 200 × 120 × 60 mm, 3 kg
          wanted by      2026-11-30 10:30+08:00 (in 5 d)
          promise        done by 2026-11-27 01:30+08:00 (in 1 d 15 h), at no more than 1,219.00 CNY (979.00 processing, 180.00 setup, 60.00 transport)
          planned        done 2026-11-26 21:30+08:00 (in 1 d 11 h)
          carbon         9.87 kg CO2e as quoted (CN-CQ/2022)
          booked         2026-11-25 10:30+08:00 (now)

         OP   CLASS       MACHINE   PLANT     START                    END                            TIME   CHANGEOVER   STATE
        ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         0    five-axis   dmu50-2   yubei-2   2026-11-26 16:30+08:00   2026-11-26 19:20+08:00   2 h 50 min       30 min   planned
         1    cmm         zeiss-1   yubei-2   2026-11-26 20:30+08:00   2026-11-26 21:30+08:00          1 h       30 min   planned
    "#]]).await;
}

#[tokio::test]
async fn a_hold_says_how_to_confirm_it() {
    let pool = Pool::new();
    let held = pool.run(&with_order(&["book", "--hold", "2h"])).await;
    assert!(held.answers.contains("millpool confirm B000001"), "{}", held.answers);
    let confirmed = pool.run(&["confirm", "B000001"]).await;
    assert!(confirmed.answers.starts_with("B000001  confirmed\n"), "{}", confirmed.answers);
}

#[tokio::test]
async fn a_kept_quote_is_booked_as_it_was() {
    let pool = Pool::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("quote.json");
    let path = path.to_str().unwrap();
    assert_eq!(pool.run(&with_order(&["quote", "--save", path])).await.exit_code, 0);
    pool.cluster.state.lock().unwrap().options.clear();
    let booked = pool.run(&["book", "--quote", path, "--option", "2", "--json"]).await.json();
    assert_eq!(booked["booking"]["order"]["quantity"], 20);
    let beyond = pool.run(&["book", "--quote", path, "--option", "4"]).await;
    assert_eq!(
        (beyond.exit_code, beyond.notices.as_str()),
        (2, "error: --option 4: the quote has options 1 to 3\n")
    );
}

#[tokio::test]
async fn show_tells_what_disturbed_a_booking() {
    let pool = Pool::new().with_booking(sample::booking_at_risk("B000042"));
    pool.shows(&["show", "B000042"], expect![[r#"
        B000042  confirmed, at risk
          reference      bracket-7
          order          20 × aluminium, 200 × 120 × 60 mm, 3 kg
          wanted by      2026-11-30 10:30+08:00 (in 5 d)
          promise        done by 2026-11-27 01:30+08:00 (in 1 d 15 h), at no more than 1,219.00 CNY (979.00 processing, 180.00 setup, 60.00 transport)
          planned        done 2026-11-27 05:30+08:00 (in 1 d 19 h), 4 h after the promise
          carbon         9.87 kg CO2e as quoted (CN-CQ/2022)
          booked         2026-11-25 10:30+08:00 (now)

         OP   CLASS       MACHINE   PLANT     START                    END                            TIME   CHANGEOVER   STATE
        ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         0    five-axis   dmu50-2   yubei-2   2026-11-26 16:30+08:00   2026-11-26 19:20+08:00   2 h 50 min       30 min   running
         1    cmm         zeiss-1   yubei-2   2026-11-26 20:30+08:00   2026-11-26 21:30+08:00          1 h       30 min   planned

        Disturbances
         WHEN                     WHAT        MACHINE   OP   REASON
        ─────────────────────────────────────────────────────────────────────────────
         2026-11-25 10:20+08:00   breakdown   dmu50-2   1    spindle bearing too hot
    "#]]).await;
}

#[tokio::test]
async fn list_in_pages_and_filtered() {
    let pool = Pool::new().with_booking(sample::booking_at_risk("B000001"));
    for number in 2..=5 {
        pool.cluster.change(sample::booking(&format!("B{number:06}")));
    }
    pool.shows(&["list", "--limit", "3"], expect![[r#"
         BOOKING   REFERENCE   STATUS               PIECES   MATERIAL    DONE BY PLAN             PROMISED BY                   AT MOST
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         B000001   bracket-7   confirmed, at risk       20   aluminium   2026-11-27 05:30+08:00   2026-11-27 01:30+08:00   1,219.00 CNY
         B000002   bracket-7   confirmed                20   aluminium   2026-11-26 21:30+08:00   2026-11-27 01:30+08:00   1,219.00 CNY
         B000003   bracket-7   confirmed                20   aluminium   2026-11-26 21:30+08:00   2026-11-27 01:30+08:00   1,219.00 CNY
        The first 3; --limit 0 shows all.
    "#]]).await;
    let at_risk = pool.run(&["list", "--at-risk", "--json"]).await.json();
    assert_eq!(at_risk["bookings"].as_array().unwrap().len(), 1);
    assert_eq!(at_risk["bookings"][0]["status"], "BOOKING_STATUS_CONFIRMED");
    let cancelled = pool.run(&["cancel", "B000005", "--reason", "not needed"]).await;
    assert!(cancelled.answers.starts_with("B000005  cancelled\n"), "{}", cancelled.answers);
}

#[tokio::test]
async fn explain_says_why_and_what_would_help() {
    Pool::new()
        .shows(
            &["explain", "B000042"],
            expect![[r#"
        - Operation 1 waits for dmu50-1, the only machine that holds 5 µm, until 2026-11-27 18:00.
        - Every other five-axis machine would need a changeover of 45 min.

         OP   REQUIREMENT    ASKED   THE POOL HAS   EXCLUDES
        ────────────────────────────────────────────────────────────
         0    tolerance_um   3       5              4 of 4 machines

        What would help
         WITHOUT                       DONE                            PRICE
        ─────────────────────────────────────────────────────────────────────
         tolerance_um of operation 1   2026-11-26 06:30+08:00     994.00 CNY
         budget_fen                    2026-11-25 22:30+08:00   1,482.50 CNY
    "#]],
        )
        .await;
}

#[tokio::test]
async fn a_machine_is_operated_from_afar_and_the_record_shows_it() {
    let pool = Pool::new();
    pool.shows(
        &["remote", "open", "B000042"],
        expect![[r#"
        s000007  open
          booking  B000042, operation 0
          machine  dmu50-1 in yubei-1
          holder   bo
          opened   2026-11-25 10:20+08:00 (10 min ago)
          until    2026-11-25 12:00+08:00 (in 1 h 30 min)
    "#]],
    )
    .await;
    let told = [
        (&["remote", "store", "s000007", "--program", "P4711"][..], 0),
        (&["remote", "start", "s000007"], 1),
        (&["remote", "revoke-start", "s000007", "--valid", "30s"], 0),
        (&["remote", "stop", "s000007"], 4),
        (&["remote", "resume", "s000007"], 4),
    ];
    for (words, code) in told {
        let ran = pool.run(words).await;
        assert_eq!(ran.exit_code, code, "{words:?}: {}{}", ran.answers, ran.notices);
    }
    pool.shows(
        &["remote", "pause", "s000007"],
        expect![[r#"
        s000007 6 pause: done (return status 1)
    "#]],
    )
    .await;
    pool.shows(
        &["remote", "start", "s000007"],
        expect![[r#"
            s000007 7 start: not asked: interlock "door" is open
        "#]],
    )
    .await;
    pool.shows(&["remote", "show", "s000007"], expect![[r#"
        s000007  open
          booking  B000042, operation 0
          machine  dmu50-1 in yubei-1
          holder   bo
          opened   2026-11-25 10:20+08:00 (10 min ago)
          until    2026-11-25 12:00+08:00 (in 1 h 30 min)
          state    producing since 2026-11-25 10:25+08:00
          pieces   3 good, expected to end 2026-11-25 11:00+08:00

         #   WHEN                     BY         WHAT           CONSENT            CAME OF IT
        ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
         1   2026-11-25 10:30+08:00   buyer:bo   store P4711    anna (user 1000)   done (return status 1)
         2   2026-11-25 10:30+08:00   buyer:bo   start          anna (user 1000)   not asked: interlock "door" is open
         3   2026-11-25 10:30+08:00   buyer:bo   revoke-start   anna (user 1000)   done (return status 1)
         4   2026-11-25 10:30+08:00   buyer:bo   stop           anna (user 1000)   nobody knows: no answer within 5 s
         5   2026-11-25 10:30+08:00   buyer:bo   resume                            the plant has not answered
         6   2026-11-25 10:30+08:00   buyer:bo   pause          anna (user 1000)   done (return status 1)
         7   2026-11-25 10:30+08:00   buyer:bo   start          anna (user 1000)   not asked: interlock "door" is open
    "#]]).await;
    pool.shows(&["remote", "close", "s000007", "--because", "shift ends"], expect![[r#"
        s000007  over
          booking  B000042, operation 0
          machine  dmu50-1 in yubei-1
          holder   bo
          opened   2026-11-25 10:20+08:00 (10 min ago)
          until    2026-11-25 12:00+08:00 (in 1 h 30 min)
          ended    2026-11-25 10:30+08:00 (now): closed by Buyer bo: shift ends

         #   WHEN                     BY         WHAT           CONSENT            CAME OF IT
        ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
         1   2026-11-25 10:30+08:00   buyer:bo   store P4711    anna (user 1000)   done (return status 1)
         2   2026-11-25 10:30+08:00   buyer:bo   start          anna (user 1000)   not asked: interlock "door" is open
         3   2026-11-25 10:30+08:00   buyer:bo   revoke-start   anna (user 1000)   done (return status 1)
         4   2026-11-25 10:30+08:00   buyer:bo   stop           anna (user 1000)   nobody knows: no answer within 5 s
         5   2026-11-25 10:30+08:00   buyer:bo   resume                            the plant has not answered
         6   2026-11-25 10:30+08:00   buyer:bo   pause          anna (user 1000)   done (return status 1)
         7   2026-11-25 10:30+08:00   buyer:bo   start          anna (user 1000)   not asked: interlock "door" is open
    "#]]).await;
    pool.shows(&["remote", "list"], expect![[r#"
         SESSION   BOOKING   OP   MACHINE   HOLDER   OPENED                   UNTIL                    ENDED
        ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         s000007   B000042    0   dmu50-1   bo       2026-11-25 10:20+08:00   2026-11-25 12:00+08:00   closed by Buyer bo: shift ends
    "#]]).await;
    let asked = [
        &["remote", "consent", "s000007", "--for", "20m"][..],
        &["remote", "withdraw", "s000007"],
        &["remote", "store", "s000007", "--program", "a.nc", "--sha256", SHA256],
        &["remote", "release", "s000007", "a.nc", SHA256],
        &["remote", "discard", "s000007", "a.nc", SHA256],
    ];
    for words in asked {
        assert_eq!(pool.run(words).await.exit_code, 0, "{words:?}");
    }
    let known = pool.cluster.state.lock().unwrap().session.commands.clone();
    let [_, _, revoke, .., consent, _, store, release, _] = &known[..] else { panic!("{known:?}") };
    assert_eq!((revoke.valid_s, consent.valid_s), (30, 5));
    assert_eq!((consent.verb(), consent.consent_s), (RemoteVerb::Consent, 1200));
    assert_eq!((release.verb(), release.program_sha256.as_str()), (RemoteVerb::Release, SHA256));
    assert_eq!((store.program.as_str(), store.program_sha256.as_str()), ("a.nc", SHA256));
    let json = pool.run(&["remote", "pause", "s000007", "--json"]).await.json();
    assert_eq!(json["command"]["verb"], "REMOTE_VERB_PAUSE");
    assert_eq!(json["command"]["outcome"]["verdict"], "REMOTE_VERDICT_DONE");
    assert_eq!(pool.run(&["remote", "open", "B000001"]).await.exit_code, 1);
    assert_eq!(pool.run(&["remote", "jog", "s000007"]).await.exit_code, 2);
}

/// Of an empty file.
const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[tokio::test]
async fn a_program_is_handed_over_in_parts_and_named_by_its_hash() {
    let pool = Pool::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bracket.nc");
    let content: Vec<u8> = (0..600_000_u32).map(|n| b"G0 X1 Y2\n"[n as usize % 9]).collect();
    std::fs::write(&path, &content).unwrap();
    let file = path.to_str().unwrap();
    let ran = pool.run(&["remote", "put", "s000007", file]).await;
    assert_eq!(ran.exit_code, 0, "{}{}", ran.answers, ran.notices);
    assert_eq!(pool.cluster.state.lock().unwrap().uploaded, content);
    let known = pool.cluster.state.lock().unwrap().session.commands.last().unwrap().clone();
    assert_eq!((known.verb(), known.program.as_str()), (RemoteVerb::Put, "bracket.nc"));
    assert_eq!(known.program_bytes, 600_000);
    // As `sha256sum` says.
    assert_eq!(known.program_sha256, "4614b2623f13f0aefe7096531f6857cf81b7c2e53eff1a5be5c38384dffaae45");
    // Stored with what the file hashes to, as it was put.
    let ran = pool.run(&["remote", "store", "s000007", "--program", "bracket.nc", "--file", file]).await;
    assert_eq!(ran.exit_code, 0, "{}{}", ran.answers, ran.notices);
    assert_eq!(
        pool.cluster.state.lock().unwrap().session.commands.last().unwrap().program_sha256,
        known.program_sha256
    );

    std::fs::write(&path, "").unwrap();
    let ran = pool.run(&["remote", "put", "s000007", file]).await;
    assert_eq!(ran.exit_code, 2);
    assert!(ran.notices.contains("bracket.nc: 0 bytes; accepted are 1 to 33554432"), "{}", ran.notices);
    let missing = pool.run(&["remote", "put", "s000007", "/nowhere/x.nc"]).await;
    assert!(missing.notices.contains("/nowhere/x.nc: "), "{}", missing.notices);
    // A hash without a program says nothing.
    assert_eq!(pool.run(&["remote", "store", "s000007", "--sha256", SHA256]).await.exit_code, 2);
}

#[tokio::test]
async fn status_shows_nodes_and_plan() {
    let mut pool = Pool::new();
    let (two, mut three) = (pool.cluster.start(2), pool.cluster.start(3));
    three.kill();
    let ran = pool.run(&["status"]).await;
    let shown = ran.answers.replace(&two.address, "node2:7400").replace(&three.address, "node3:7400");
    // The local addresses that were replaced differ in length from run to run.
    let shown: String =
        shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect();
    expect![[r#"
        test-pool leader 1, term 3, revision 1240

        NODE ADDRESS ROLE VERSION APPLIED LAG SNAPSHOT STATE HASH AGENTS
        ────────────────────────────────────────────────────────────────────────────────────────────────────
        1 node1:7400 leader 0.1.0 1,240 0 1,000 7f3a0c119d2e4b58 4
        2 node2:7400 follower 0.1.0 1,237 3 1,000 7f3a0c119d2e4b58 0
        3 node3:7400 follower silent

        holds 2 members, 3 plants, 12 machines, 9 offers, 61 bookings, 310 request ids
        plan 126 open bookings, 253 assignments, 2 at risk
        cost 482,135.50 CNY
        last optimisation 2026-11-25 10:26+08:00 (4 min ago): 498,701.20 → 482,135.50, bound 469,500.00, gap 2.6 %, 37 moved, took 4210 ms
        allocation 26 d 6 h booked of 43 d 16 h open: 60.2 %
        Node 3 could not be asked: tcp connect error: Connection refused (os error 111)
    "#]].assert_eq(&(shown + &ran.notices));
    let json = pool.run(&["status", "--json"]).await.json();
    assert_eq!(json["nodes"][1]["status"]["applied_index"], 1237);
    assert_eq!(json["nodes"][2]["status"], Value::Null);
    assert_eq!(json["plan"]["bookings_at_risk"], 2);
    pool.node.kill();
    assert_eq!(pool.run(&["status", "--timeout", "1s"]).await.exit_code, 3);
}

#[tokio::test]
async fn machines_are_listed_created_and_changed() {
    let pool = Pool::new();
    pool.shows(&["machines", "list"], expect![[r#"
         MACHINE          PLANT      CLASS       AXES   ENVELOPE MM        UP TO   TOL µM   FAMILIES   MATERIALS          CNY/H   STATE
        ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         c400-1           beibei-1   five-axis      5   500 × 450 × 400   300 kg        5   F1 F2      aluminium steel   240.00   producing
         dmu50-1          yubei-2    five-axis      5   500 × 450 × 400   300 kg        6   F1 F2      aluminium steel   248.00   idle
         dmu50-2          yubei-2    five-axis      5   500 × 450 × 400   300 kg        7   F1 F2      aluminium steel   256.00   unknown
         ecomill-1        beibei-1   mill           3   500 × 450 × 400   300 kg        8   F1 F2      aluminium steel   264.00   producing
         ecomill-2        beibei-1   mill           3   500 × 450 × 400   300 kg        9   F1 F2      aluminium steel   272.00   idle
         kellenberger-1   nanan-3    grinder        3   500 × 450 × 400   300 kg       10   F1 F2      aluminium steel   280.00   down, until 2026-11-26 10:30+08:00
         mori-nlx-1       nanan-3    lathe          3   500 × 450 × 400   300 kg       11   F1 F2      aluminium steel   288.00   producing
         mori-nlx-2       nanan-3    lathe          3   500 × 450 × 400   300 kg       12   F1 F2      aluminium steel   296.00   idle
         mx330-1          yubei-2    five-axis      5   500 × 450 × 400   300 kg       13   F1 F2      aluminium steel   304.00   unknown
         studer-s33-1     nanan-3    grinder        3   500 × 450 × 400   300 kg       14   F1 F2      aluminium steel   312.00   producing
         vf2-1            yubei-2    mill           3   500 × 450 × 400   300 kg       15   F1 F2      aluminium steel   320.00   idle
         zeiss-1          yubei-2    cmm            3   500 × 450 × 400   300 kg       16   F1 F2      aluminium steel   328.00   unknown
    "#]]).await;
    let changed = pool.run(&["machines", "put", "dmu50-1", "--rate", "290", "--json"]).await.json();
    assert_eq!(changed["machine"]["rate_fen_per_hour"], 29_000);
    assert_eq!(changed["machine"]["plant_id"], "yubei-2", "what no flag names stays");
    assert_eq!(changed["machine"]["revision"], 42, "the revision that was seen is replaced");
    let lacking = pool.run(&["machines", "put", "new-1", "--plant", "yubei-2"]).await;
    assert_eq!(lacking.exit_code, 2);
    assert!(lacking.notices.contains("there is no machine 'new-1' yet; to create it, say --name, --class"));
    let words = [
        "machines",
        "put",
        "new-1",
        "--plant",
        "yubei-2",
        "--name",
        "New",
        "--class",
        "five-axis",
        "--axes",
        "5",
        "--envelope",
        "500x450x400",
        "--mass-max",
        "300kg",
        "--tolerance",
        "8",
        "--materials",
        "aluminium,steel",
        "--families",
        "F1,F2",
        "--changeover",
        "F1>F2=45m",
        "--rate",
        "320",
        "--power",
        "900/1500/9000",
        "--json",
    ];
    let created = pool.run(&words).await.json();
    assert_eq!(created["machine"]["class"], "MACHINE_CLASS_FIVE_AXIS");
    assert_eq!(created["machine"]["changeovers"][0]["seconds"], 2700);
    assert_eq!(created["machine"]["power"]["cutting_w"], 9000);
}

#[tokio::test]
async fn offers_are_listed_made_and_withdrawn() {
    let pool = Pool::new();
    pool.shows(&["offers", "list"], expect![[r#"
         OFFER      MACHINE   SHIFTS                FROM                     UNTIL                    WINDOWS   NOTICE   OPEN   STATE
        ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         nights-1   dmu50-1   mon-fri 18:00-06:00   2026-11-25 18:00+08:00   2026-11-30 06:00+08:00         5      2 h   60 h   lent
    "#]]).await;
    let words = [
        "offers",
        "create",
        "weekend-1",
        "--machine",
        "dmu50-1",
        "--shift",
        "sat,sun 00:00-24:00",
        "--until",
        "+28d",
        "--except",
        "sat 08:00..+6h",
        "--notice",
        "2h",
        "--json",
    ];
    let made = pool.run(&words).await.json();
    assert_eq!(made["offer"]["from_s"], sample::NOW_S);
    assert_eq!(
        made["offer"]["except"][0]["end_s"].as_i64().unwrap()
            - made["offer"]["except"][0]["start_s"].as_i64().unwrap(),
        21_600
    );
    pool.shows(
        &["offers", "withdraw", "nights-1", "--preview"],
        expect![[r#"
        Withdrawing nights-1 would take the place of 1 operation:
         BOOKING   OP   MACHINE   START                    END
        ──────────────────────────────────────────────────────────────────────────
         B000001   0    dmu50-1   2026-11-25 11:30+08:00   2026-11-25 13:00+08:00
    "#]],
    )
    .await;
    let nothing = pool.run(&["offers", "create", "x", "--machine", "dmu50-1"]).await;
    assert_eq!(nothing.exit_code, 2);
}

#[tokio::test]
async fn members_and_plants() {
    let pool = Pool::new();
    pool.shows(
        &["members", "list"],
        expect![[r#"
         MEMBER       NAME                   REVISION
        ──────────────────────────────────────────────
         liangjiang   Liangjiang Precision          4
    "#]],
    )
    .await;
    pool.shows(
        &["plants", "list"],
        expect![[r#"
         PLANT     NAME            MEMBER       TIME ZONE       EAST M   NORTH M   GRID    REVISION
        ────────────────────────────────────────────────────────────────────────────────────────────
         yubei-2   Yubei, hall 2   liangjiang   Asia/Shanghai     3200     -1500   CN-CQ          9
    "#]],
    )
    .await;
    let moved = pool.run(&["plants", "put", "yubei-2", "--north", "-900", "--json"]).await.json();
    assert_eq!(
        (&moved["plant"]["north_m"], &moved["plant"]["east_m"]),
        (&Value::from(-900), &Value::from(3200))
    );
    let added = pool.run(&["members", "put", "beibei", "--name", "Beibei Tools", "--json"]).await.json();
    assert_eq!(added["member"]["name"], "Beibei Tools");
}

#[tokio::test]
async fn plan_as_bars_and_table() {
    let pool = Pool::new();
    pool.shows(&["plan", "--bars"], expect![[r#"
        Plan at revision 1240: 126 open bookings, 253 assignments, 2 at risk
          cost               482,135.50 CNY
          last optimisation  2026-11-25 10:26+08:00 (4 min ago): 498,701.20 → 482,135.50, bound 469,500.00, gap 2.6 %, 37 moved, took 4210 ms
          allocation         60.2 % of open time (26 d 6 h of 43 d 16 h)

        c400-1           ██·███··      ·███·█···      ██████▒·      █████████     ·█▒·███··      █·████▒·
        dmu50-1         ·      █···███·      ███·██··       ▒▒·███·██·▒▒█▒▒·█·███·████·████··█··       ███·
        dmu50-2         ███ ███·      ██··███·      ██·· ███·      ██· ▒▒··      ·██··███·      ▒▒▒ ██·█
        ecomill-1        ▒▒·██▒▒·      ·▒▒·██···      ███·█▒··      ███·████      ·█·▒▒▒█··      ██·██·▒▒
        ecomill-2       ·      █··▒▒▒█·      ███·██··       █··██·███▒▒█▒▒▒·█·██·█·███████···█··       ███·
        kellenberger-1  ··· ██··      ▒····▒▒·      ·▒█· ██··      █·· ▒·██      ███··▒█·▒      █·· █·█·
        mori-nlx-1       ████·██·      █▒·██·███      ▒▒████··      ▒▒·█·██·      ·█·██▒▒█·      ▒▒███·█·
        mori-nlx-2      ·      █···█▒█·      ███·██··       ██▒██·▒·███·▒▒██··██·██▒██·█▒██·▒·█·▒      █·█·
        mx330-1         ▒▒▒ ███·      █·█··███      ·██· ▒···      █·· ██··      ██··███··      ██· ██··
        studer-s33-1     ·█▒▒▒▒▒·      ███·███··      ██·██·█·      ████·████     ·███████·      ▒█·██·██
        vf2-1           ·      █▒▒██···      █·▒·▒▒··       ██▒██████·█████···█▒▒█·████·▒▒··███·       ███·
        zeiss-1         ██· ▒▒▒·      ██··███·      ·█·█ ██··      █·██▒██▒      ·██··█···      ▒▒▒ ███·
                        2026-11-25 06:00+08:00                                       2026-12-01 00:00+08:00
        █ yours  ▒ others  · open
    "#]]).await;
    let table = pool.run(&["plan"]).await.answers;
    let head: String = table.lines().skip(6).take(4).map(|line| line.to_owned() + "\n").collect();
    expect![[r#"
        ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         c400-1           2026-11-25 08:45+08:00   2026-11-25 12:30+08:00   3 h 45 min   B000002    0   F3       running
         c400-1           2026-11-25 13:20+08:00   2026-11-25 15:20+08:00          2 h   B000003    2   F3       frozen
         c400-1           2026-11-25 15:50+08:00   2026-11-25 17:50+08:00          2 h   B000004    0   F4       frozen
    "#]].assert_eq(&head);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.svg");
    let drawn = pool.run(&["plan", "--svg", path.to_str().unwrap(), "--group", "class"]).await;
    assert_eq!(drawn.exit_code, 0, "{}", drawn.notices);
    assert!(std::fs::read_to_string(path).unwrap().contains("Five-axis centres"));
}

#[tokio::test]
async fn policy_is_shown_and_replaced() {
    let pool = Pool::new();
    pool.shows(
        &["policy", "get"],
        expect![[r#"
            Policy, revision 12
              freeze horizon             2 h
              lead before new work       30 min
              promise slack              4 h
              quotes stand for           15 min
              a late minute costs        0.50 CNY
              transport time             30 min + 2 min a km
              transport price            30.00 CNY + 3.50 CNY a km
              transport carbon           210 g CO2e a km
              request ids kept           1 d
              holds a buyer may have     20
              what is over is known for  400 d
              days begin at              16:00 UTC
              a shift is                 8 h

             GRID    YEAR   G CO2E/KWH   BASIS                SOURCE
            ────────────────────────────────────────────────────────────────────
             CN-CQ   2022        522.7   provincial average   a national record
        "#]],
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.json");
    let mut policy = pool.run(&["policy", "get", "--json"]).await.json()["policy"].take();
    policy["freeze_s"] = Value::from("4h");
    std::fs::write(&path, policy.to_string()).unwrap();
    let put = pool.run(&["policy", "put", "--file", path.to_str().unwrap(), "--json"]).await.json();
    assert_eq!(
        (&put["policy"]["freeze_s"], &put["policy"]["revision"]),
        (&Value::from(14_400), &Value::from(13))
    );
}

#[tokio::test]
async fn principals_and_their_token() {
    let pool = Pool::new();
    pool.shows(
        &["principals", "list"],
        expect![[r#"
         PRINCIPAL   ROLE    EXPIRES                  STATE
        ────────────────────────────────────────────────────
         acme        buyer   2027-02-23 10:30+08:00   valid
    "#]],
    )
    .await;
    pool.shows(
        &["principals", "put", "beibei", "--role", "member"],
        expect![[r#"
         PRINCIPAL   ROLE     EXPIRES                  STATE
        ─────────────────────────────────────────────────────
         beibei      member   2027-02-23 10:30+08:00   valid

        Token, shown only now:
        mp_5ecret
    "#]],
    )
    .await;
    pool.shows(
        &["principals", "revoke", "acme", "--role", "buyer"],
        expect![[r#"
         PRINCIPAL   ROLE    EXPIRES                  STATE
        ──────────────────────────────────────────────────────
         acme        buyer   2026-11-26 10:30+08:00   revoked
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_backup_is_whole_or_not_there() {
    let pool = Pool::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.backup");
    let name = file.to_str().unwrap();
    pool.cluster.state.lock().unwrap().cut_backup = true;
    let ran = pool.run(&["backup", name]).await;
    assert_eq!(ran.exit_code, 0, "{}", ran.notices);
    assert!(ran.notices.contains("begun anew"), "{}", ran.notices);
    assert_eq!(std::fs::read(&file).unwrap(), b"the whole state");
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it holds everybody's data");
    let again = pool.run(&["backup", name]).await;
    assert_eq!(again.exit_code, 2, "it is not overwritten");
    let listed: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(listed.len(), 1, "nothing unfinished is left: {listed:?}");
    let restore = pool.run(&["restore", name]).await;
    assert_eq!(restore.exit_code, 2);
    assert!(restore.notices.contains(&format!("millpool-scheduler restore {name}")), "{}", restore.notices);
}

#[tokio::test]
async fn nodes() {
    let pool = Pool::new();
    let added =
        pool.run(&["nodes", "add", "4", "--peer", "d:7401", "--public", "d:7400", "--json"]).await.json();
    assert_eq!(added["nodes"][1]["peer_address"], "d:7401");
    assert_eq!(pool.run(&["nodes", "remove", "4"]).await.exit_code, 0);
    assert_eq!(pool.run(&["nodes", "transfer-leader"]).await.answers, "Node 2 leads.\n");
    assert_eq!(
        pool.run(&["nodes", "snapshot"]).await.answers,
        "Node 1 wrote a snapshot up to log index 1,240.\n"
    );
}

#[tokio::test]
async fn watch_tells_what_changed() {
    let pool = Pool::new().with_booking(sample::booking("B000042"));
    let change = async {
        while !pool.node.calls().contains(&"WatchBookings") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        pool.cluster.change(sample::booking_at_risk("B000042"));
    };
    let (ran, ()) = tokio::join!(pool.run(&["watch", "--changes", "2"]), change);
    expect![[r#"
        1241      B000042  bracket-7: confirmed, done 2026-11-26 21:30+08:00, promised by 2026-11-27 01:30+08:00
        1242      B000042  breakdown: operation 1 on dmu50-2: spindle bearing too hot; operation 0 began on dmu50-2; done 2026-11-27 05:30+08:00; AT RISK
    "#]].assert_eq(&(ran.answers + &ran.notices));
    let plan = pool.run(&["watch", "--plan", "--changes", "1"]).await;
    expect![[r#"
        1240      126 open bookings, 253 assignments, cost 482,135.50 CNY, last gap 2.6 %, 26 d 6 h of 43 d 16 h booked, 2 at risk
    "#]].assert_eq(&plan.answers);
}

#[tokio::test]
async fn how_runs_end() {
    let pool = Pool::new();
    pool.node.fail_next([Fault::Refused]);
    let refused = pool.run(&with_order(&["book"])).await;
    assert_eq!(refused.exit_code, 1);
    expect![[r#"
        error: Book was refused by node1:7400: no option costs at most 500.00 CNY [BUDGET_EXCEEDED]
          field            order.budget_fen
          value            50000
          accepted         at least 61200
          order.due_s      lies in the past
          machine dmu50-1  taken by another booking
    "#]]
    .assert_eq(&refused.notices);

    pool.node.fail_next([Fault::AnswerLost, Fault::AnswerLost, Fault::AnswerLost, Fault::AnswerLost]);
    let unknown = pool.run(&with_order(&["book", "--timeout", "0s", "--request-id", "abc"])).await;
    assert_eq!(unknown.exit_code, 4, "{}", unknown.notices);
    assert!(unknown.notices.contains("Repeat the command with --request-id abc"), "{}", unknown.notices);

    let words = ["millpool", "list", "--endpoints=127.0.0.1:1", "--timeout", "1s"];
    let nobody = bare(words.map(str::to_owned).to_vec()).await;
    assert_eq!(nobody.exit_code, 3, "{}", nobody.notices);
}

#[tokio::test]
async fn what_was_typed_wrong_is_named() {
    let cases = [
        (
            &["quote", "--size", "3x4"][..],
            "invalid value '3x4' for '--size <XxYxZ>': accepted is three edges",
        ),
        (
            &["quote", "--mass", "3lb"],
            "invalid value '3lb' for '--mass <MASS>': accepted is a number with g, kg",
        ),
        (&["quote", "--due", "soon"], "invalid value 'soon' for '--due <TIME>': accepted is +5d"),
        (&["quote", "--op", "saw"], "invalid value 'saw' for '--op <STEP>': 'saw' is not lathe"),
        (&["quote", "--quantity", "3"], "the order lacks --material, --size, --mass, --op, --due"),
        (&["quote", "--order", "/nowhere.json"], "/nowhere.json: No such file"),
        (&["book", "--cheapest", "--fastest"], "cannot be used with"),
        (&["book", "--option", "0"], "invalid value '0' for '--option <N>'"),
        (&["principals", "put", "x", "--role", "boss"], "accepted is buyer, member"),
        (&["offers", "withdraw"], "<ID>"),
        (&["fly"], "unrecognized subcommand 'fly'"),
    ];
    let pool = Pool::new();
    for (words, told) in cases {
        let ran = pool.run(words).await;
        assert_eq!(ran.exit_code, 2, "{words:?}");
        assert!(ran.notices.contains(told), "{words:?}: {}", ran.notices);
        assert!(ran.answers.is_empty(), "{words:?}");
    }
}

#[tokio::test]
async fn help_and_completions() {
    let help = bare(vec!["millpool".to_owned(), "--help".to_owned()]).await;
    assert_eq!(help.exit_code, 0);
    expect![[r#"
        Books, lends, follows and runs the idle hours of an alliance's machines

        Usage: millpool [OPTIONS] <COMMAND>

        Commands:
          quote        Asks for options: machines, dates, prices and carbon. Keeps nothing
          book         Books an order within terms, and prints the promise
          confirm      Turns a hold into a confirmed booking
          show         Shows one booking: its promise, its operations, what disturbed it
          list         Lists bookings
          cancel       Gives up what has not begun; the time goes back to the pool
          explain      Says why a booking is where it is, or why an order finds no better place, and what
                       would help
          watch        Prints changes as they come, and goes on through the death of the node that tells
                       them
          remote       Operate a machine from afar: open, close, list, show, store, start, pause and the
                       rest
          plan         Shows the plan: its figures, and who is on which machine when
          kpi          Shows what machines did with their time: the indicators of ISO 22400-2
          members      Members of the alliance: list, put
          plants       Plants of the members: list, put
          machines     Machines of the plants: list, put
          offers       Windows of machines, lent to the alliance: list, create, withdraw
          status       Shows the nodes, the leader, how far each is, and the plan's figures
          nodes        Coordinators of the cluster: list, add, remove, transfer-leader, snapshot
          backup       Writes a backup of everything that the alliance knows, to be kept elsewhere
          restore      Tells how a backup is restored
          principals   Who may call: list, put, revoke
          policy       The rules that the alliance has given itself: get, put
          completions  Prints a completion script for a shell
          help         Print this message or the help of the given subcommand(s)

        Options:
          -h, --help     Print help
          -V, --version  Print version

        Connection:
              --endpoints <HOST:PORT,...>  Coordinators, in order of preference [env: MILLPOOL_ENDPOINTS]
              --ca <FILE>                  File with the certificates to trust, PEM; turns TLS on, without
                                           which no token leaves this host [env: MILLPOOL_CA]
              --tls-server-name <NAME>     Name in the coordinators' certificates, where it is not their
                                           host [env: MILLPOOL_TLS_SERVER_NAME]
              --token-file <FILE>          File with the bearer token (or the token itself in
                                           MILLPOOL_TOKEN) [env: MILLPOOL_TOKEN_FILE]
              --timeout <DURATION>         Longest that a call may take, over all its attempts
              --config <FILE>              Configuration file [default: millpool/config.toml in the user's
                                           configuration folder] [env: MILLPOOL_CLI_CONFIG]

        Display:
              --json           Answer in JSON, by the field names of the contract
              --utc            Show times in UTC instead of the local time zone
              --color <COLOR>  Colours; auto means on a terminal, unless NO_COLOR is set [default: auto]
                               [possible values: auto, always, never]

        Getting started:
          export MILLPOOL_ENDPOINTS=node1:7400,node2:7400,node3:7400
          export MILLPOOL_CA=~/.millpool/ca.pem MILLPOOL_TOKEN_FILE=~/.millpool/token
          millpool quote --quantity 20 --material aluminium --size 200x120x60 --mass 3kg \
              --op "five-axis family=F1 setup=20m run=6m tol=20" --op "cmm family=F2 run=90s" --due +5d
          millpool book  <the same> --cheapest
          millpool watch

        Quantities: times as +5d, 'fri 17:00', 2026-11-28T17:00:00+08:00; durations as 90s, 20m, 1h30m, 5d;
        money in CNY as 1,234.56; sizes as 200x120x60 mm; masses as 800g, 3kg.

        Exit codes:
          0  done
          1  refused: a coordinator said no, and why
          2  not understood: a flag, a value or a file cannot be used
          3  unavailable: no coordinator could serve, and nothing has happened
          4  outcome unknown: a write may have happened; repeat it with the --request-id that is printed
    "#]]
    .assert_eq(&help.answers);
    for shell in ["bash", "zsh", "fish"] {
        let words = ["millpool", "completions", shell];
        let script = bare(words.map(str::to_owned).to_vec()).await;
        assert!(script.exit_code == 0 && script.answers.contains("transfer-leader"), "{shell}");
    }
}
