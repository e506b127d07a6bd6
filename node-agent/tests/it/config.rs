//! The configuration: what is wrong is named with the field, the value and what is accepted.

use millpool_node_agent::agent::Adapter;
use millpool_node_agent::config::otlp::OtlpFile;
use millpool_node_agent::config::{Config, ConfigError, File, Overrides, load, resolve};
use millpool_node_agent::remote::consent::Rule;
use millpool_node_agent::session::Token;
use std::path::Path;

const GOOD: &str = include_str!("../data/good.toml");

fn read(text: &str, overrides: &Overrides) -> Result<Config, ConfigError> {
    resolve(toml::from_str::<File>(text).unwrap(), overrides)
}

fn problems(text: &str) -> Vec<String> {
    match read(text, &Overrides::default()) {
        Err(ConfigError::Unusable(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn several_plants_share_what_they_do_not_say_themselves() {
    let config = read(GOOD, &Overrides::default()).unwrap();
    assert_eq!(config.agents.len(), 2);
    let [first, second] = config.agents.as_slice() else { panic!() };
    assert_eq!(first.data_dir, Path::new("/tmp/agents/p1"));
    assert_eq!(second.data_dir, Path::new("/srv/p2"));
    assert_eq!(first.machines.len(), 2);
    let Adapter::Simulated(m1) = &first.machines[0].adapter else { panic!() };
    let Adapter::Simulated(m3) = &second.machines[0].adapter else { panic!() };
    assert_eq!((m1.seed, m1.progress_s, m3.seed, m3.progress_s), (9, 600, 9, 60));
    let Adapter::Mtconnect(m4) = &second.machines[1].adapter else { panic!() };
    assert_eq!(m4.url, "http://10.0.0.1:5000");
    assert_eq!(m4.signals.len(), 2);
    let Adapter::Sparkplug(m5) = &second.machines[2].adapter else { panic!() };
    let Adapter::Sparkplug(m6) = &second.machines[3].adapter else { panic!() };
    assert_eq!((m5.broker.host.as_str(), m5.broker.port, &m5.broker), ("10.0.0.5", 1883, &m6.broker));
    assert_eq!(m5.broker.client_id, "millpool-p2");
    let address = m5.machine.address.as_ref().unwrap();
    assert_eq!((address.node.as_str(), address.device.as_deref()), ("line1", Some("mill")));
    assert_eq!(m6.machine.address, None);
}

#[test]
fn flags_and_environment_win_over_the_file() {
    let overrides = Overrides {
        coordinators: vec!["localhost:9".to_owned()],
        token: Some("t".to_owned()),
        clock_scale: Some(60.0),
        clock_epoch: Some("2026-11-23T08:00:00Z".to_owned()),
        clock_plant_epoch: Some("0".to_owned()),
        data_dir: Some("/elsewhere".into()),
        ..Overrides::default()
    };
    let config = read(GOOD, &overrides).unwrap();
    assert_eq!(config.agents[0].coordinators, ["localhost:9"]);
    assert!(matches!(&config.agents[0].token, Token::Given(token) if token == "t"));
    assert_eq!(config.agents[0].data_dir, Path::new("/elsewhere/p1"));
    assert_eq!(config.agents[1].data_dir, Path::new("/srv/p2"));
    let epoch_ms = "2026-11-23T08:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond();
    assert_eq!(config.clock.at_wall_ms(epoch_ms + 1000), 60_000);
}

#[test]
fn every_problem_is_named_with_its_field_value_and_what_is_accepted() {
    let found = problems(
        r#"
        [http]
        listen = "here"
        [log]
        format = "xml"
        [clock]
        scale = 0.0
        [coordinator]
        addresses = ["10.0.0.1:7400", "nowhere"]
        insecure_dev = true
        [[agent]]
        plant = "Plant 1"
        [[agent.machine]]
        id = "m"
        adapter = "focas"
        [[agent.machine]]
        id = "m"
        adapter = "mtconnect"
        mtconnect = { url = "ftp://x", signals = { spindle = "S" } }
        "#,
    );
    let expected = [
        "clock.scale = 0.0: accepted is 0.001 to 100000.0",
        "clock.epoch = \"none\": accepted is a time, where the clock is scaled or shifted: the coordinator's",
        "log.format = \"xml\": accepted is text or json",
        "http.listen = \"here\": accepted is an IP address and port, e.g. 127.0.0.1:9464",
        "agent[0].plant = \"Plant 1\": accepted is 1 to 40 lower-case letters, digits and dashes",
        "agent[0].data_dir = \"none\": accepted is a folder, here or as data_dir at the top",
        "agent[0].coordinator.addresses = \"nowhere\": accepted is host:port, e.g. 127.0.0.1:7400",
        "agent[0].coordinator.addresses = \"10.0.0.1:7400\": accepted is a loopback address, with insecure_dev",
        "agent[0].machine[0].adapter = \"focas\": accepted is manual, simulated, mtconnect, opcua or sparkplug",
        "agent[0].machine[1].id = \"m\": accepted is an id that no other machine of the agent has",
        "agent[0].machine[1].mtconnect.url = \"ftp://x\": accepted is http://host:port",
    ];
    for line in expected {
        assert!(found.iter().any(|problem| problem == line), "{line} is not in {found:#?}");
    }
}

#[test]
fn remote_operation_is_what_the_plant_allows_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let with = |remote: &str| {
        let opcua = "adapter = \"opcua\"\nopcua = { url = \"opc.tcp://10.0.0.2:4840\" }";
        format!("{GOOD}\n[[agent.machine]]\nid = \"m7\"\n{opcua}\nremote = {remote}\n")
    };
    let rule = |remote: &str| {
        let config = read(&with(remote), &Overrides::default()).unwrap();
        config.agents[1].machines[4].remote.clone().unwrap()
    };
    assert_eq!(rule("{}"), Rule::default());
    assert!(!rule("{ standing = [\"bo\"] }").from_afar, "nobody agrees from afar, unless the plant says so");
    let programs = folder.path().display().to_string();
    let all = Rule { standing: vec!["bo".into()], from_afar: true, programs: Some(folder.path().into()) };
    assert_eq!(rule(&format!("{{ standing = [\"bo\"], from_afar = true, programs = {programs:?} }}")), all);

    let gone = folder.path().join("gone").display().to_string();
    for folder in ["programs", &gone] {
        let expected = format!(
            "agent[1].machine[4].remote.programs = {folder:?}: accepted is an absolute path of a folder that is there"
        );
        assert_eq!(problems(&with(&format!("{{ programs = {folder:?} }}"))), [expected]);
    }
    let expected = "agent[1].machine[4].remote.standing[0] = \"Bo\": accepted is 1 to 40 lower-case letters, digits and dashes";
    assert_eq!(problems(&with("{ standing = [\"Bo\"] }")), [expected]);
}

#[test]
fn meters_are_sent_nowhere_unless_a_collector_is_named() {
    assert!(read(GOOD, &Overrides::default()).unwrap().otlp.is_none());
    let named = format!("otlp.endpoint = \"http://127.0.0.1:4317\"\n{GOOD}");
    assert!(read(&named, &Overrides::default()).unwrap().otlp.is_some());
    let every_s = |every_s| OtlpFile { every_s, ..OtlpFile::default() };
    let overrides = Overrides { otlp: every_s(Some(3601)), ..Overrides::default() };
    assert!(read(&named, &overrides).is_err(), "flags win over the file");
    for (otlp, expected) in [
        (
            "endpoint = \"http://c:4318/v1/metrics\"",
            "otlp.endpoint = \"http://c:4318/v1/metrics\": accepted is http://host:port or https://host:port of OTLP over \
             gRPC, without a path",
        ),
        ("endpoint = \"http://c:4317\"\nevery_s = 0", "otlp.every_s = 0: accepted is 1 to 3600 seconds"),
        (
            "endpoint = \"https://c:4317\"",
            "otlp.ca_file = \"none\": accepted is a PEM file of the collector's authority, with https",
        ),
        (
            "endpoint = \"https://c:4317\"\nca_file = \"/nowhere\"",
            "otlp.ca_file = \"/nowhere\": accepted is a file that can be read (No such file or directory (os error 2))",
        ),
    ] {
        let found = problems(&format!("{GOOD}\n[otlp]\n{otlp}\n"));
        assert_eq!(found, [expected]);
    }
}

#[test]
fn samples_are_kept_unless_a_plant_wants_none_and_limits_are_named() {
    let with = |table: &str| GOOD.replace("plant = \"p1\"\n", &format!("plant = \"p1\"\n{table}\n"));
    let kept = |table: &str| {
        let config = read(&with(table), &Overrides::default()).unwrap();
        assert!(config.samples.contains_key("p2"), "the other says nothing");
        config.samples.get("p1").map(|options| (options.keep_days, options.bytes_max))
    };
    assert_eq!(kept(""), Some((30, 4 << 30)));
    assert_eq!(kept("samples = { keep_days = 7, bytes_max = 1000000000 }"), Some((7, 1_000_000_000)));
    assert_eq!(kept("samples = { keep_days = 0 }"), None);
    let found = problems(&with("samples = { keep_days = 401, bytes_max = 1000 }"));
    let expected = [
        "agent[0].samples.keep_days = 401: accepted is 0 to 400",
        "agent[0].samples.bytes_max = 1000: accepted is 268435456 to 1099511627776",
    ];
    assert_eq!(found, expected);
    assert!(toml::from_str::<File>(&with("samples = { days = 3 }")).is_err());
}

/// A machine's sparkplug table, wrong in one way each.
#[test]
fn what_is_wrong_with_a_broker_is_named() {
    let state = r#"signals = { state = { metric = "S", values = { "1" = "idle" } } }"#;
    let whole = |table: &str| {
        format!("[[agent]]\nplant = \"p\"\n[[agent.machine]]\nid = \"m\"\nadapter = \"sparkplug\"\n{table}")
    };
    for (table, expected) in [
        (
            "".to_owned(),
            "sparkplug = \"none\": accepted is a table with at least `broker`, `group`, `node` and `signals`",
        ),
        (
            format!("broker = \"tcp://h:1883\"\n{state}"),
            ".broker = \"tcp://h:1883\": accepted is mqtts://host:port, or mqtt://host:port",
        ),
        (
            format!("broker = \"mqtt://h/x:1883\"\n{state}"),
            ".broker = \"mqtt://h/x:1883\": accepted is mqtts://host:port",
        ),
        (
            format!("broker = \"mqtt://h:1883\"\nuser = \"u\"\n{state}"),
            ".user = \"u\": accepted is none, with mqtt:// to another host: the password could be read on the network",
        ),
        (
            format!("broker = \"mqtt://127.0.0.1:1883\"\nuser = \"u\"\n{state}"),
            ".user = Some(\"u\"): accepted is a name together with a password_file, or neither",
        ),
        (
            format!("broker = \"mqtts://h:8883\"\n{state}"),
            ".ca_file = \"none\": accepted is a PEM file, with mqtts://",
        ),
        (
            format!("broker = \"mqtt://h:1883\"\nca_file = \"ca\"\n{state}"),
            ".broker = \"mqtt://h:1883\": accepted is mqtts://, with certificates",
        ),
        (
            format!("broker = \"mqtts://h:8883\"\nca_file = \"ca\"\nkey_file = \"k\"\n{state}"),
            "cert_file and key_file together",
        ),
        (
            format!("broker = \"mqtt://h:1883\"\ngroup = \"g/h\"\nnode = \"n\"\n{state}"),
            ".group = \"g/h\": accepted is 1 to 256 bytes, none of them /, + or #",
        ),
        (
            format!("broker = \"mqtt://h:1883\"\ngroup = \"g\"\n{state}"),
            ".node = \"\": accepted is 1 to 256 bytes",
        ),
        (
            format!("broker = \"mqtt://h:1883\"\ngroup = \"g\"\nnode = \"n\"\ndevice = \"#\"\n{state}"),
            ".device = \"#\": accepted is 1 to 256 bytes",
        ),
        (
            "broker = \"mqtt://h:1883\"\nsignals = { load = \"L\" }".to_owned(),
            ".signals.state = \"none\": accepted is a metric, with a state for each of its values",
        ),
        (
            "broker = \"mqtt://h:1883\"\nsignals = { state = \"S\" }".to_owned(),
            ".signals.state.values = \"none\": accepted is a state for each value",
        ),
        (
            format!(
                "broker = \"mqtt://h:1883\"\ngroup = \"g\"\nnode = \"n\"\n{}",
                state.replace("\"S\"", "\"topic:a/#\"")
            ),
            ".signals.state = \"topic:a/#\": accepted is topic: and one topic outside Sparkplug",
        ),
        (
            format!("broker = \"mqtt://h:1883\"\n{}", state.replace("\"S\"", "\"topic:spBv1.0/g/NDATA/n\"")),
            "accepted is topic: and one topic outside Sparkplug",
        ),
    ] {
        let table = if table.is_empty() { table } else { format!("[agent.machine.sparkplug]\n{table}") };
        let found = problems(&whole(&table));
        assert!(found.iter().any(|problem| problem.contains(expected)), "{expected} is not in {found:#?}");
    }
}

#[test]
fn two_lines_of_one_name_to_a_broker_are_refused() {
    let text = GOOD.replace(
        "signals = { state = { metric = \"topic:",
        "password_file = \"/dev/null\"\nuser = \"u\"\nsignals = { state = { metric = \"topic:",
    );
    let text = text.replace("mqtt://10.0.0.5", "mqtt://127.0.0.1");
    let found = problems(&text);
    let expected = "agent[1].machine m6.sparkplug.client_id = \"millpool-p2\": accepted is another name";
    assert!(found.iter().any(|problem| problem.starts_with(expected)), "{found:#?}");
}

/// The good settings, with a `[agent.publish]` for the second plant.
fn publishing(table: &str) -> String {
    format!("{GOOD}\n[agent.publish]\n{table}\n")
}

#[test]
fn a_plant_is_published_where_it_says() {
    let config =
        read(&publishing("broker = \"mqtt://10.0.0.5:1883\"\ngroup = \"member\""), &Overrides::default());
    let config = config.unwrap();
    assert_eq!(config.publish.keys().collect::<Vec<_>>(), ["p2"], "only where there is a table");
    let options = &config.publish["p2"];
    assert_eq!((options.group.as_str(), options.node.as_str()), ("member", "p2"));
    assert_eq!((options.broker.port, options.broker.client_id.as_str()), (1883, "millpool-p2-publish"));
}

#[test]
fn what_is_wrong_with_what_is_published_is_named() {
    let broker = "broker = \"mqtt://10.0.0.5:1883\"";
    for (table, expected) in [
        ("group = \"g\"".to_owned(), ".broker = \"\": accepted is mqtts://host:port, or mqtt://host:port"),
        (broker.to_owned(), ".group = \"\": accepted is 1 to 256 bytes, none of them /, + or #"),
        (
            format!("{broker}\ngroup = \"a/b\""),
            ".group = \"a/b\": accepted is 1 to 256 bytes, none of them /, + or #",
        ),
        (
            format!("{broker}\ngroup = \"a+b\""),
            ".group = \"a+b\": accepted is 1 to 256 bytes, none of them /, + or #",
        ),
        (
            format!("{broker}\ngroup = \"g\"\nnode = \"#\""),
            ".node = \"#\": accepted is 1 to 256 bytes, none of them /, + or #",
        ),
        (
            format!("{broker}\ngroup = \"g\"\nuser = \"u\"\npassword_file = \"/dev/null\""),
            ".user = \"u\": accepted is none, with mqtt:// to another host",
        ),
        (
            "broker = \"mqtts://10.0.0.5:8883\"\ngroup = \"g\"".to_owned(),
            ".ca_file = \"none\": accepted is a PEM file, with mqtts://",
        ),
        (
            format!("{broker}\ngroup = \"g\"\nclient_id = \"millpool-p2\""),
            ".client_id = \"millpool-p2\": accepted is another name than that with which m5 is read",
        ),
        (
            format!("{broker}\ngroup = \"shop\"\nnode = \"line1\""),
            ".node = \"line1\": accepted is an edge node of one's own: behind this one m5 is read",
        ),
    ] {
        let expected = format!("agent[1].publish{expected}");
        let found = problems(&publishing(&table));
        assert!(
            found.iter().any(|problem| problem.starts_with(&expected)),
            "{expected} is not in {found:#?}"
        );
    }
    let table = "broker = \"mqtt://10.0.0.5:1883\"\ngroup = \"g\"\nnode = \"n\"\nclient_id = \"c\"\n";
    let first = "[[agent]]\nplant = \"p1\"\n";
    let both = publishing(table)
        .replace(first, &format!("{first}publish = {{ {} }}\n", table.trim().replace('\n', ", ")));
    assert_eq!(
        problems(&both),
        [
            "agent[1].publish.client_id = \"c\": accepted is a name that no other [[agent]] has on the broker",
            "agent[1].publish.node = \"n\": accepted is an edge node that no other [[agent]] is",
        ]
    );
}

#[test]
fn a_machine_is_like_a_recorded_one_or_like_none() {
    let text = GOOD.replace("simulated = { progress_s = 60 }", "simulated = { like = \"Mazak03\" }");
    let config = read(&text, &Overrides::default()).unwrap();
    let Adapter::Simulated(like) = &config.agents[1].machines[0].adapter else { panic!() };
    let Adapter::Simulated(other) = &config.agents[0].machines[0].adapter else { panic!() };
    assert_eq!((like.like.map(|recorded| recorded.name.as_str()), other.like), (Some("Mazak03"), None));
    assert_eq!(
        problems(&text.replace("Mazak03", "mazak03")),
        ["agent[1].machine[0].simulated.like = \"mazak03\": accepted is a recorded machine: \
          GFAgie01, Mazak01, Mazak03"]
    );
}

#[test]
fn a_line_without_certificates_or_token_is_refused() {
    let text = GOOD.replace("insecure_dev = true", "");
    let found = problems(&text);
    assert!(found.iter().any(|problem| problem.contains("coordinator.ca_file")), "{found:#?}");
    assert!(found.iter().any(|problem| problem.contains("coordinator.token")), "{found:#?}");
}

#[test]
fn an_unknown_field_is_named() {
    let wrong = toml::from_str::<File>("[[agent]]\nplant = \"p\"\nmachnies = []").unwrap_err().to_string();
    assert!(wrong.contains("machnies") && wrong.contains("simulated_machines"), "{wrong}");
}

#[test]
fn the_examples_are_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let config = load(&entry.unwrap().path(), &Overrides::default()).unwrap();
        for address in config.agents.iter().flat_map(|agent| &agent.coordinators) {
            assert!(address.ends_with(":7400"), "{address}: a coordinator's public port is 7400 by default");
        }
        seen += 1;
    }
    assert_eq!(seen, 3);
}
