//! Layers, faults, and that the files we ship are read as they are meant.

use serde_json::json;

use super::*;

pub(super) fn with(text: &str, environment: &[(&str, &str)]) -> Result<Config, Faults> {
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    read(text, &environment, &Flags::default())
}

fn faults(text: &str) -> Vec<String> {
    with(text, &[]).unwrap_err().0.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_gives_the_defaults() {
    let config = with("", &[]).unwrap();
    assert_eq!(config.listeners.http.listen.to_string(), "0.0.0.0:9000");
    assert_eq!(config.listeners.http.advertise, "127.0.0.1:9000");
    assert_eq!(config.listeners.peer.listen.to_string(), "127.0.0.1:7000");
    assert_eq!(config.raft.heartbeat, Duration::from_millis(50));
    assert_eq!(config.bootstrap_expect, 1);
    assert_eq!(config.document, json!({}));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn later_layers_win() {
    let file =
        "cluster: {raft: {preset: lan}}\norchestrator: {port: 9100}\nlogging: {level: warn}\n";
    let config = with(file, &[]).unwrap();
    assert_eq!(config.listeners.http.listen.port(), 9100);
    assert_eq!((config.raft.heartbeat.as_millis(), config.log_level.as_str()), (30, "warn"));

    let variables = [
        ("QUORATE_CLUSTER_RAFT_HEARTBEAT_MS", "40"),
        ("ORCHESTRATOR_PORT", "9200"),
        ("LOG_LEVEL", "DEBUG"),
        ("QUORATE_CLUSTER_PEERS", "a:7000, b:7000"),
        ("QUORATE_NETWORK_MAX_NODES", "7"),
    ];
    let config = with(file, &variables).unwrap();
    assert_eq!(config.listeners.http.listen.port(), 9200);
    assert_eq!((config.raft.heartbeat.as_millis(), config.log_level.as_str()), (40, "DEBUG"));
    assert_eq!(config.peers, ["a:7000", "b:7000"]);
    assert_eq!(config.document["network"]["max_nodes"], 7);

    let flags = Flags {
        host: Some("127.0.0.1".to_owned()),
        port: Some(9300),
        log_level: Some("debug".to_owned()),
        log_format: Some(telemetry::Format::Json),
    };
    let config = read(file, &BTreeMap::new(), &flags).unwrap();
    assert_eq!(config.listeners.http.listen.to_string(), "127.0.0.1:9300");
    assert_eq!((config.log_level.as_str(), config.log_format), ("debug", telemetry::Format::Json));
}

#[test]
fn every_fault_is_told_at_once_with_key_and_line() {
    let text = "\
cluster:
  nmae: x
  bootstrap_expect: 12
  raft:
    preset: fast
    heartbeat_ms: 100
listeners:
  - profile: web4ai
    addr: nowhere
  - profile: fax
    addr: 1.2.3.4:5
network:
  max_nodes: many
";
    let faults = faults(text);
    let expected = [
        "line 2: cluster.nmae: unknown key; `cluster` holds name, data_dir",
        "line 3: cluster.bootstrap_expect: must be a whole number from 0 to 9, not 12",
        "line 5: cluster.raft.preset: must be one of default, lan, wan, not \"fast\"",
        "line 9: listeners.0.addr: must be ip:port, not `nowhere`",
        "line 10: listeners.1.profile: must be one of web4ai, nano",
        "line 13: network.max_nodes: must be a whole number from 1",
        "cluster.raft.election_min_ms: 150ms must be at least twice the heartbeat",
    ];
    for part in expected {
        assert!(faults.iter().any(|fault| fault.contains(part)), "no `{part}` in {faults:#?}");
    }
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
}

#[test]
fn faults_of_variables_name_the_variable() {
    let error = with("", &[("QUORATE_CLUSTER_BOOTSTRAP_EXPECT", "x")]).unwrap_err().to_string();
    assert!(
        error.contains("QUORATE_CLUSTER_BOOTSTRAP_EXPECT: cluster.bootstrap_expect"),
        "{error}"
    );
    let error = with("", &[("QUORATE_PEER_LISTEN", "x")]).unwrap_err().to_string();
    assert!(error.contains("QUORATE_PEER_LISTEN: must be ip:port"), "{error}");
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let two = faults("cluster: {bootstrap_expect: 3, peers: ['a:1']}\n");
    assert!(two[0].contains("3 members are expected, but `cluster.peers` names 1"), "{two:?}");
    let ports =
        "listeners: [{profile: peer, addr: '127.0.0.1:1'}, {profile: web4ai, addr: '127.0.0.1:1'}]";
    assert!(faults(ports)[0].contains("both listen on 127.0.0.1:1"));
    let open = "listeners: [{profile: peer, addr: '0.0.0.0:7000'}]";
    assert!(faults(open)[0].contains("needs `advertise`"), "{:?}", faults(open));
    assert!(faults("[1]")[0].contains("sections"));
    assert!(faults("a: [")[0].contains("YAML"));
}

#[test]
fn family_w_files_are_kept_whole_and_unknown_keys_reported() {
    let text = "\
orchestrator: {id: mine, host: 0.0.0.0, port: 9000, log_level: INFO}
network: {load_balance_algorithm: least_connections, colour: blue}
storage: {type: redis, path: ./orchestrator_data, redis: {host: r}}
logging: {format: '%(asctime)s', backup_count: 5}
---
second: document
";
    let config = with(text, &[]).unwrap();
    assert_eq!(config.document["network"]["colour"], "blue");
    assert_eq!(config.document["storage"]["redis"]["host"], "r");
    assert_eq!(config.data_dir, PathBuf::from("./orchestrator_data"));
    assert_eq!(config.log_level, "INFO");
    // One of the pattern, one of the colour, and one of each key that has no effect.
    let told = |key: &str| config.warnings.iter().any(|warning| warning.starts_with(key));
    for key in ["logging.format", "storage.type", "storage.redis", "logging.backup_count"] {
        assert!(told(key), "{key}: {:?}", config.warnings);
    }
    assert_eq!(config.warnings.len(), 5, "{:?}", config.warnings);
    assert!(config.warnings.iter().any(|w| w.starts_with("network.colour: unknown key")));
    assert!(faults("network: {load_balance_algorithm: magic}")[0].contains("round_robin"));
}

#[test]
fn the_generated_file_is_the_shipped_one_and_means_the_defaults() {
    let generated = generate();
    let shipped = include_str!("../../cluster/member.yaml");
    assert!(shipped == generated, "run `quorate config generate > cluster/member.yaml`");
    let config = with(&generated, &[]).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let defaults = with("", &[]).unwrap();
    assert_eq!(config, Config { document: crate::state::default_document(), ..defaults });
    // The keys that have no default of their own are there too, ready to be switched on.
    assert!(with(&generated.replace("# heartbeat_ms:", "heartbeat_ms: 60"), &[]).is_ok());
}

#[test]
fn shipped_members_form_a_cluster() {
    let dir = Path::new("data/local");
    let shipped = [
        include_str!("../../cluster/member1.yaml"),
        include_str!("../../cluster/member2.yaml"),
        include_str!("../../cluster/member3.yaml"),
    ];
    for (number, text) in (1..).zip(shipped) {
        assert_eq!(text, local_member(number, 3, dir, None));
        let config = with(text, &[]).unwrap();
        assert_eq!(config.listeners.http.listen.port(), 9000 + 100 * (number - 1));
        assert_eq!(config.listeners.peer.advertise, config.peers[usize::from(number) - 1]);
        assert_eq!((config.bootstrap_expect, config.peers.len()), (3, 3));
    }
}

/// A reader who copied the shipped files to three machines had members that only their own machine reaches.
#[test]
fn the_readme_says_how_three_machines_form_a_cluster() {
    let shown = include_str!("../../README.md").split("```yaml\n").nth(1).unwrap();
    let shown = shown.split("```").next().unwrap();
    assert!(include_str!("../../cluster/README.md").contains(shown), "the two say the same");
    for number in 1..=3 {
        let (name, host) = (format!("m{number}"), format!("host{number}"));
        let text = shown.replace("m1", &name);
        let text = text.replace(r#"advertise: "host1:"#, &format!(r#"advertise: "{host}:"#));
        let config = with(&text, &[]).unwrap();
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        assert_eq!((config.name, config.bootstrap_expect), (name, 3));
        assert_eq!(config.listeners.peer.advertise, config.peers[number - 1]);
        assert_eq!(config.listeners.http.advertise, format!("{host}:9000"));
        assert!(config.listeners.peer.listen.ip().is_unspecified());
    }
}

#[test]
fn contract_5_5_services_are_where_file_or_environment_say() {
    let config = with("", &[]).unwrap();
    let urls: Vec<&str> = config.services.iter().map(|(_, url)| url).collect();
    let defaults = [
        "http://image-generation-service:5000",
        "http://video-generation-service:5001",
        "http://crypto-prediction-service:5002",
        "http://fraud-detection-service:5004",
        "http://compression-service:5006",
        "http://marketing-intelligence-service:5007",
    ];
    assert_eq!(urls, defaults);
    let file = "services: {image_generation: 'http://a:1/', video_generation: 'https://b/v'}";
    let variables = [
        ("VIDEO_SERVICE_URL", "http://c:2"),
        ("FRAUD_SERVICE_URL", "http://d:3"),
        ("QUORATE_SERVICES_FRAUD_DETECTION", "http://e:4"),
    ];
    let config = with(file, &variables).unwrap();
    let urls: Vec<&str> = config.services.iter().map(|(_, url)| url).collect();
    let expected =
        ["http://a:1", "http://c:2", defaults[2], "http://e:4", defaults[4], defaults[5]];
    assert_eq!(urls, expected);
    assert_eq!(config.document, json!({}), "they are this member's, not the cluster's");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    for (text, wanted) in [
        ("services: {image_generation: 'ftp://a'}", "services.image_generation: `ftp://a` is no"),
        ("services: {image: 'http://a'}", "services.image: unknown key; `services` holds image_g"),
        ("services: {marketing: 7}", "services.marketing: must be a text"),
    ] {
        let faults = faults(text);
        assert!(faults.len() == 1 && faults[0].contains(wanted), "{faults:?}");
    }
}

/// Variables given as text, whatever the file calls the members.
fn checked(variables: &[(String, String)]) -> Config {
    let environment: BTreeMap<String, String> = variables.iter().cloned().collect();
    let known = environment.keys().filter(|name| name.starts_with("QUORATE_"));
    for name in known {
        let ours = keys::KEYS.iter().any(|key| keys::variable(key.path) == *name);
        let listener = name.ends_with("_LISTEN") || name.ends_with("_ADVERTISE");
        assert!(ours || listener, "{name} means nothing");
    }
    read("", &environment, &Flags::default()).unwrap()
}

#[test]
fn the_compose_file_sets_variables_that_mean_something() {
    let text = include_str!("../../cluster/compose.yaml");
    let mut file: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).unwrap();
    file.apply_merge().unwrap();
    for number in 1..=3 {
        let name = format!("member{number}");
        let environment = file["services"][name.as_str()]["environment"].as_mapping().unwrap();
        let text = |value: &serde_yaml_ng::Value| value.as_str().unwrap().to_owned();
        let pairs: Vec<_> = environment.iter().map(|(k, v)| (text(k), text(v))).collect();
        let config = checked(&pairs);
        assert_eq!((config.name.as_str(), config.bootstrap_expect), (name.as_str(), 3));
        assert_eq!(config.listeners.http.advertise, format!("{name}:9000"));
        assert_eq!(config.listeners.peer.advertise, config.peers[number - 1]);
    }
}

#[test]
fn the_kubernetes_file_sets_variables_that_mean_something() {
    let text = include_str!("../../cluster/kubernetes.yaml");
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    let all: Vec<Value> =
        documents.map(|document| serde::Deserialize::deserialize(document).unwrap()).collect();
    let set = all.iter().find(|document| document["kind"] == "StatefulSet").unwrap();
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    for number in 0..3 {
        let pod = format!("quorate-{number}");
        let pair = |entry: &Value| {
            let value = entry["value"].as_str()?.replace("$(POD_NAME)", &pod);
            Some((entry["name"].as_str()?.to_owned(), value))
        };
        let pairs: Vec<_> = container["env"].as_array().unwrap().iter().filter_map(pair).collect();
        let config = checked(&pairs);
        assert_eq!(config.name, pod);
        assert_eq!(config.listeners.peer.advertise, config.peers[number]);
        assert_eq!(config.listeners.http.advertise, format!("{pod}.quorate:9000"));
    }
}

#[test]
fn contract_2_12_the_websocket_listens_where_its_section_says() {
    let listener = |text: &str| {
        let config = with(text, &[]).unwrap();
        let mut more = config.listeners.more.into_iter();
        more.find(|listener| listener.profile == Profile::Websocket).map(|its| its.listen)
    };
    assert_eq!(listener(""), None);
    assert_eq!(listener("websocket: {max_connections: 7}"), None);
    assert_eq!(listener("websocket: {port: 9001, enabled: false}"), None);
    assert_eq!(listener("websocket: {port: 9001}").unwrap().to_string(), "0.0.0.0:9001");
    let both = "websocket: {port: 9001, host: localhost}";
    assert_eq!(listener(both).unwrap().to_string(), "127.0.0.1:9001");
    let list = format!("{both}\nlisteners: [{{profile: websocket, addr: '127.0.0.1:9101'}}]");
    assert_eq!(listener(&list).unwrap().port(), 9101);
    assert!(faults("websocket: {port: 9001, host: here}")[0].contains("websocket.host"));
}

#[test]
fn contract_1_4_who_may_come_in_is_checked_before_a_member_starts() {
    let keys = "security: {api_keys: [k1, {key: k2, role: node}]}";
    assert!(with(keys, &[]).unwrap().warnings.is_empty());
    let users = "security: {users: [{username: ada, password: pw}]}";
    assert!(with(users, &[]).unwrap().warnings.is_empty());
    for (text, key) in [
        ("security: {api_keys: [{key: hidden, role: root}]}", "security.api_keys"),
        ("security: {users: [{username: hidden}]}", "security.users"),
        ("security: {allowed_ips: [here]}", "security.allowed_ips"),
    ] {
        let faults = faults(text);
        assert!(faults.len() == 1 && faults[0].contains(key), "{faults:?}");
        assert!(!faults[0].contains("hidden"), "{faults:?}");
    }
}

#[test]
fn contract_3_8_variables_of_family_n_set_the_first_configuration() {
    let variables = [
        ("ORCHESTRATOR_MODE", "SCHEDULED"),
        ("ORCHESTRATOR_DEFAULT_NAME", "prod"),
        ("ORION_ENABLE_ORCHESTRATOR_BEAT", "true"),
        ("LOG_LEVEL", "WARNING"),
        ("LOG_FORMAT", "json"),
        ("RATE_LIMIT_ENABLED", "true"),
        ("ENABLE_METRICS", "false"),
        ("SECRET_KEY", "a secret of more than thirty-two bytes"),
    ];
    let config = with("", &variables[..3]).unwrap();
    let orchestrator = json!({"mode": "SCHEDULED", "default_name": "prod", "beat_enabled": true});
    assert_eq!(config.document, json!({"orchestrator": orchestrator}));
    let config = with("", &variables[4..]).unwrap();
    assert_eq!(config.log_format, telemetry::Format::Json);
    let security = json!({"rate_limiting": true,
        "secret_key": "a secret of more than thirty-two bytes"});
    assert_eq!(config.document, json!({"security": security, "metrics": {"enabled": false}}));
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].starts_with("security.rate_limiting: limits nothing"));
    // Our own names go before theirs, and the file behind both.
    let ours = [("ORCHESTRATOR_MODE", "PAUSED"), ("QUORATE_ORCHESTRATOR_MODE", "MANUAL")];
    let config = with("orchestrator: {mode: CONTINUOUS}", &ours).unwrap();
    assert_eq!(config.document["orchestrator"]["mode"], "MANUAL");
    let wrong = with("", &[("ORCHESTRATOR_MODE", "sometimes")]).unwrap_err().0;
    let told = wrong[0].to_string();
    assert!(told.starts_with("ORCHESTRATOR_MODE: orchestrator.mode"), "{told}");
    let short = with("", &[("SECRET_KEY", "change-me")]).unwrap().warnings;
    assert!(short[0].contains("security.secret_key") && !short[0].contains("change-me"));
}

#[test]
fn contract_3_8_variables_that_mean_nothing_here_are_named_once() {
    let unused = [
        ("DATABASE_URL", "postgresql://nano:secret@db/nano"),
        ("REDIS_URL", "redis://cache:6379"),
        ("API_PREFIX", "/api"),
        ("ENABLE_TRACING", "true"),
    ];
    let config = with("", &unused).unwrap();
    let told =
        "DATABASE_URL, REDIS_URL, API_PREFIX, ENABLE_TRACING: variables that are not used here";
    assert_eq!(config.warnings, [told]);
    assert_eq!(config.document, json!({}));
}

#[test]
fn contract_2_5_and_4_11_variables_of_families_w_and_a() {
    let config = with(
        "",
        &[
            ("PROMETHEUS_ENABLED", "false"),
            ("SLACK_WEBHOOK_URL", "https://hooks.example/x"),
            ("DEBUG_MODE", "true"),
            ("GRPC_PORT", "50061"),
            ("METRICS_PORT", "8100"),
        ],
    );
    let config = config.unwrap();
    assert_eq!(config.document["metrics"]["enabled"], false);
    let slack = json!({"enabled": true, "webhook_url": "https://hooks.example/x"});
    assert_eq!(config.document["alerts"]["slack"], slack);
    assert_eq!(config.log_level, "debug");
    assert_eq!(config.listeners.grpc.unwrap().listen.port(), 50_061);
    let more: Vec<_> =
        config.listeners.more.iter().map(|one| (one.profile, one.listen.port())).collect();
    assert_eq!(more, [(Profile::Agents, 8100)]);
    let file = "alerts:\n  slack:\n    enabled: false\n";
    let config = with(file, &[("SLACK_WEBHOOK_URL", "https://hooks.example/x")]).unwrap();
    assert_eq!(config.document["alerts"]["slack"]["enabled"], false, "the file says so");
    assert!(with("", &[("GRPC_PORT", "many")]).unwrap_err().to_string().contains("GRPC_PORT"));
    let unused = [("API_KEY", "s3cret"), ("EMAIL_HOST", "mail"), ("MAX_WORKERS", "9")];
    let told = "API_KEY, MAX_WORKERS, EMAIL_HOST: variables that are not used here";
    assert_eq!(with("", &unused).unwrap().warnings, [told]);
}

#[test]
fn contract_2_12_keys_of_the_file_that_nobody_reads_are_named_at_start() {
    let file =
        "network:\n  keep_alive: false\nstorage:\n  path: data/x\nbackup:\n  enabled: true\n";
    let config = read(file, &BTreeMap::new(), &Flags::default()).unwrap();
    let told = |key: &str| config.warnings.iter().any(|warning| warning.starts_with(key));
    assert!(told("network.keep_alive: has no effect") && told("backup: has no effect"));
    assert!(!told("storage.path"), "it was read");
}

/// It counted nowhere: the default of the other name always stood before it.
#[test]
fn contract_2_8_the_balancer_may_be_named_in_either_place() {
    let named = |text: &str| {
        let config = with(text, &[]).unwrap();
        let own = |warning: &String| warning.starts_with("performance.load_balancing");
        assert!(!config.warnings.iter().any(own), "{:?}", config.warnings);
        config.document["network"]["load_balance_algorithm"].clone()
    };
    let theirs = "performance: {load_balancing: {algorithm: round_robin}}";
    assert_eq!(named(theirs), "round_robin");
    let both = format!("{theirs}\nnetwork: {{load_balance_algorithm: least_connections}}");
    assert_eq!(named(&both), "least_connections");
}
