//! What people and spreadsheets read of the machines' time.

use crate::fake::pool::Pool;
use expect_test::expect;

#[tokio::test]
async fn the_alliances_week_with_what_it_is_made_of() {
    Pool::new()
        .shows(
            &["kpi"],
            expect![[r#"
        5 machines from 2026-11-18 10:30+08:00 to 2026-11-25 10:30+08:00
          allocation      78.0 %  in hand 16 d 6 h, lent 20 d 20 h
          utilisation     80.0 %  producing 13 d, in hand 16 d 6 h
          availability    62.4 %  producing 13 d, lent 20 d 20 h
          effectiveness   96.2 %  should have run 12 d 12 h, producing 13 d
          quality         97.0 %  970 good of 1000
          OEE             58.2 %
          setup           11.1 %  setting up 1 d 15 h, with producing 14 d 15 h
          unknown          3.0 %  unknown 15 h, lent 20 d 20 h
          besides            3 h  in hand while not lent, in no share
          energy         2,000.00 kWh (1,500.00 kWh measured, 500.00 kWh modelled)
          emissions      1,045.40 kg

         STATE              TIME    SHARE       LENT    IN HAND
        ────────────────────────────────────────────────────────
         unknown         8 d 8 h   28.6 %       15 h       10 h
         idle           4 d 14 h   15.7 %   3 d 12 h    1 d 5 h
         setup          1 d 15 h    5.6 %   1 d 15 h   1 d 15 h
         producing     13 d 18 h   47.2 %   13 d 8 h       13 d
         maintenance        20 h    2.9 %       20 h        0 s
    "#]],
        )
        .await;
}

#[tokio::test]
async fn a_row_for_each_machine() {
    Pool::new().shows(&["kpi", "--by", "machine", "--last", "30d"], expect![[r#"
         MACHINE   ALLOCATION   UTILISATION   AVAILABILITY   EFFECTIVENESS   QUALITY      OEE   SETUP   UNKNOWN       ENERGY   MEASURED   EMISSIONS
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         dmu50-1       78.0 %        80.0 %         62.4 %          96.2 %    97.0 %   58.2 %       –     3.0 %   800.00 kWh     75.0 %   418.16 kg
         zeiss-1       78.0 %        80.0 %         62.4 %          96.2 %    97.0 %   58.2 %       –     3.0 %   400.00 kWh     75.0 %   209.08 kg
    "#]]).await;
}

#[tokio::test]
async fn as_csv_for_who_reckons_on() {
    Pool::new().shows(&["kpi", "--by", "machine", "--each", "day", "--csv"], expect![[r#"
        group_id,start_s,end_s,machines,planned_busy_s,busy_s,production_s,setup_s,lent_unknown_s,busy_besides_s,state_unknown_s,state_off_s,state_idle_s,state_setup_s,state_producing_s,state_held_s,state_blocked_s,state_maintenance_s,pieces_good,pieces_scrapped,run_planned_s,energy_measured_wh,energy_modelled_wh,carbon_g,allocation,utilisation,availability,effectiveness,quality,oee,setup_ratio
        dmu50-1,1794969000,1795573800,1,720000,561600,449280,56160,21600,4320,288000,0,158400,56160,475200,0,0,28800,388,12,432000,600000,200000,418160,0.780000,0.800000,0.624000,0.961538,0.970000,0.582000,
        zeiss-1,1794969000,1795573800,1,360000,280800,224640,28080,10800,2160,144000,0,79200,28080,237600,0,0,14400,194,6,216000,300000,100000,209080,0.780000,0.800000,0.624000,0.961538,0.970000,0.582000,
    "#]]).await;
}

#[tokio::test]
async fn as_a_drawing() {
    let (pool, folder) = (Pool::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("kpi.svg").display().to_string();
    let ran = pool.run(&["kpi", "--by", "machine", "--svg", &path]).await;
    assert_eq!(ran.answers, format!("{path}: 2 rows\n"), "{}", ran.notices);
    let drawn = std::fs::read_to_string(&path).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains(">dmu50-1<") && drawn.contains(">78.0 %<"));
    assert_eq!(pool.run(&["kpi", "--by", "machine", "--svg", "-"]).await.answers, drawn);
    let ran = pool.run(&["kpi", "--svg", "/nowhere/kpi.svg"]).await;
    assert!(ran.exit_code == 2 && ran.notices.contains("--svg /nowhere/kpi.svg"), "{}", ran.notices);
}

#[tokio::test]
async fn as_json_and_of_nothing() {
    let pool = Pool::new();
    let json = pool.run(&["kpi", "--json"]).await.json();
    assert_eq!(json["indicators"][0]["busy_s"], 1_404_000);
    pool.cluster.state.lock().unwrap().indicators.clear();
    assert_eq!(pool.run(&["kpi"]).await.answers, "Nothing is known of that time.\n");
    let ran = pool.run(&["kpi", "--until", "now"]).await;
    assert_eq!(ran.exit_code, 2, "{}", ran.notices);
}
