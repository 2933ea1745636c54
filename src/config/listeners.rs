//! Where a member listens and what it tells others (contract 1.1, 8.5).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;

use serde_json::Value;

use super::Flags;
use super::tree::Tree;

/// What a listener is for. All HTTP profiles serve every path; they break ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// HTTP, family W: what members and clients are told.
    Web4ai,
    /// HTTP, family N.
    Nano,
    /// HTTP, family A.
    Agents,
    /// HTTP, family B.
    Bots,
    /// Family W's WebSocket.
    Websocket,
    /// gRPC.
    Grpc,
    /// Other members.
    Peer,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Web4ai,
        Self::Nano,
        Self::Agents,
        Self::Bots,
        Self::Websocket,
        Self::Grpc,
        Self::Peer,
    ];

    /// Its word in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Web4ai => "web4ai",
            Self::Nano => "nano",
            Self::Agents => "agents",
            Self::Bots => "bots",
            Self::Websocket => "websocket",
            Self::Grpc => "grpc",
            Self::Peer => "peer",
        }
    }

    /// Whether it serves the REST API.
    #[must_use]
    pub fn speaks_http(self) -> bool {
        match self {
            Self::Web4ai | Self::Nano | Self::Agents | Self::Bots => true,
            Self::Websocket | Self::Grpc | Self::Peer => false,
        }
    }

    /// The port it has when nothing is said.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Web4ai => 9000,
            Self::Nano | Self::Agents => 8000,
            Self::Bots => 5003,
            Self::Websocket => 9001,
            Self::Grpc => 50_051,
            Self::Peer => 7000,
        }
    }

    /// The variables that override its addresses begin so.
    fn variable(self) -> String {
        let name = if self == Self::Web4ai { "http" } else { self.as_str() };
        format!("QUORATE_{}", name.to_uppercase())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|profile| profile.as_str() == word);
        found.ok_or_else(|| {
            format!("must be one of {}, not `{word}`", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// What it is for.
    pub profile: Profile,
    /// Where it listens.
    pub listen: SocketAddr,
    /// `host:port` that others are told.
    pub advertise: String,
}

/// All listeners of a member. HTTP and peers are always there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listeners {
    /// The REST API.
    pub http: Listener,
    /// Other members.
    pub peer: Listener,
    /// gRPC, when it is served.
    pub grpc: Option<Listener>,
    /// The others.
    pub more: Vec<Listener>,
}

#[derive(Debug, Clone, Default)]
struct Draft {
    listen: Option<SocketAddr>,
    advertise: Option<String>,
}

type Drafts = BTreeMap<Profile, Draft>;

/// Reads `listeners`, then what else may name an address: family W's `orchestrator.host` and
/// `port` (below the list), the environment, flags (above it).
pub(super) fn read(
    tree: &mut Tree,
    environment: &BTreeMap<String, String>,
    flags: &Flags,
) -> Listeners {
    let mut drafts = Drafts::new();
    drafts.insert(Profile::Web4ai, Draft::default());
    drafts.insert(Profile::Peer, Draft::default());
    // Family W's variables go before the file's list, the file's own values do not.
    let from_file = (tree.given("orchestrator.host"), tree.given("orchestrator.port"));
    let named = |name: &str| environment.contains_key(name);
    let over_list = named("ORCHESTRATOR_HOST") || named("ORCHESTRATOR_PORT");
    if !over_list {
        lay_host_port(tree, &mut drafts, from_file.clone());
    }
    lay_websocket(tree, &mut drafts);
    read_list(tree, &mut drafts);
    if over_list {
        lay_host_port(tree, &mut drafts, from_file);
    }
    lay_family_a(tree, &mut drafts, environment);
    for profile in Profile::ALL {
        read_variables(tree, &mut drafts, environment, profile);
    }
    let flags = (flags.host.clone().map(Value::from), flags.port.map(Value::from));
    lay_host_port(tree, &mut drafts, flags);
    finish(tree, drafts)
}

/// Replaces host, port or both of the HTTP listener.
fn lay_host_port(tree: &mut Tree, drafts: &mut Drafts, given: (Option<Value>, Option<Value>)) {
    let (host, port) = given;
    if host.is_none() && port.is_none() {
        return;
    }
    let draft = drafts.entry(Profile::Web4ai).or_default();
    let listen = draft.listen.unwrap_or_else(|| default_address(Profile::Web4ai));
    let host = host.map_or_else(
        || Ok(listen.ip()),
        |host| match host.as_str() {
            Some("localhost") => Ok([127, 0, 0, 1].into()),
            text => text.unwrap_or_default().parse().map_err(|_| host),
        },
    );
    let port = port.map_or_else(
        || Ok(listen.port()),
        |port| port.as_u64().and_then(|port| u16::try_from(port).ok()).ok_or(port),
    );
    match (host, port) {
        (Ok(host), Ok(port)) => draft.listen = Some(SocketAddr::new(host, port)),
        (Err(host), _) => {
            tree.fault("orchestrator.host", format!("must be an IP address, not {host}"))
        }
        (_, Err(port)) => {
            tree.fault(
                "orchestrator.port",
                format!("must be a number from 0 to 65535, not {port}"),
            );
        }
    }
}

/// Family W names the WebSocket's address in a section of its own (contract 2.12). Nothing there
/// means no listener of its own: `/ws` beside the API is served anyway.
fn lay_websocket(tree: &mut Tree, drafts: &mut Drafts) {
    let (host, port) = (tree.given("websocket.host"), tree.given("websocket.port"));
    let is_off = tree.given("websocket.enabled") == Some(Value::from(false));
    if is_off || port.is_none() {
        return;
    }
    let default = default_address(Profile::Websocket);
    let port = port.and_then(|port| u16::try_from(port.as_u64()?).ok());
    let ip = match host.as_ref().map(|host| host.as_str().unwrap_or_default()) {
        None => Some(default.ip()),
        Some("localhost") => Some([127, 0, 0, 1].into()),
        Some(text) => text.parse().ok(),
    };
    match (ip, port) {
        (Some(ip), Some(port)) => {
            let draft = drafts.entry(Profile::Websocket).or_default();
            draft.listen = Some(SocketAddr::new(ip, port));
        }
        (None, _) => tree.fault("websocket.host", "must be an IP address"),
        // Reported with the other values of the section.
        (Some(_), None) => {}
    }
}

/// Family A's programs name two ports (contract 4.11). They open listeners like our own variables,
/// which win, and go before the file's list.
fn lay_family_a(tree: &mut Tree, drafts: &mut Drafts, environment: &BTreeMap<String, String>) {
    for (name, profile) in [("GRPC_PORT", Profile::Grpc), ("METRICS_PORT", Profile::Agents)] {
        let Some(text) = environment.get(name) else { continue };
        match text.trim().parse::<u16>() {
            Ok(port) => {
                let draft = drafts.entry(profile).or_default();
                let ip = draft.listen.unwrap_or_else(|| default_address(profile)).ip();
                draft.listen = Some(SocketAddr::new(ip, port));
            }
            Err(_) => {
                tree.fault_of("", name, format!("must be a number from 0 to 65535, not `{text}`"));
            }
        }
    }
}

fn read_list(tree: &mut Tree, drafts: &mut Drafts) {
    let Some(list) = tree.given("listeners") else { return };
    let Some(items) = list.as_array() else {
        tree.fault("listeners", "must be a list of {profile, addr, advertise}");
        return;
    };
    for (number, item) in items.iter().enumerate() {
        let at = |name: &str| format!("listeners.{number}.{name}");
        let Some(fields) = item.as_object() else {
            tree.fault(&format!("listeners.{number}"), "must have a profile and an addr");
            continue;
        };
        for name in fields.keys() {
            if !["profile", "addr", "advertise"].contains(&name.as_str()) {
                tree.fault(&at(name), "unknown key; a listener holds profile, addr, advertise");
            }
        }
        let text = |name: &str| fields.get(name).map(|v| v.as_str().unwrap_or_default());
        let profile = match text("profile").unwrap_or_default().parse::<Profile>() {
            Ok(profile) => profile,
            Err(what) => {
                tree.fault(&at("profile"), what);
                continue;
            }
        };
        let draft = drafts.entry(profile).or_default();
        match parse_listen(text("addr").unwrap_or_default()) {
            Ok(address) => draft.listen = Some(address),
            Err(what) => tree.fault(&at("addr"), what),
        }
        if let Some(advertise) = text("advertise") {
            match check_host_port(advertise) {
                Ok(()) => draft.advertise = Some(advertise.to_owned()),
                Err(what) => tree.fault(&at("advertise"), what),
            }
        }
    }
}

fn read_variables(
    tree: &mut Tree,
    drafts: &mut Drafts,
    environment: &BTreeMap<String, String>,
    profile: Profile,
) {
    let listen = format!("{}_LISTEN", profile.variable());
    let advertise = format!("{}_ADVERTISE", profile.variable());
    if let Some(text) = environment.get(&listen) {
        match parse_listen(text) {
            Ok(address) => drafts.entry(profile).or_default().listen = Some(address),
            Err(what) => tree.fault_of("", &listen, what),
        }
    }
    if let Some(text) = environment.get(&advertise) {
        match check_host_port(text) {
            Ok(()) => drafts.entry(profile).or_default().advertise = Some(text.clone()),
            Err(what) => tree.fault_of("", &advertise, what),
        }
    }
}

fn default_address(profile: Profile) -> SocketAddr {
    // Peers are not to be reached from anywhere unless somebody says so.
    let host = if profile == Profile::Peer { [127, 0, 0, 1] } else { [0, 0, 0, 0] };
    SocketAddr::from((host, profile.default_port()))
}

fn finish(tree: &mut Tree, drafts: Drafts) -> Listeners {
    let mut all: BTreeMap<Profile, Listener> = BTreeMap::new();
    // The peer address says which host this is; the others follow it.
    let peer_host = drafts.get(&Profile::Peer).and_then(|draft| {
        let advertised =
            draft.advertise.as_ref()?.rsplit_once(':').map(|(host, _)| host.to_owned());
        let bound = draft.listen.filter(|listen| !listen.ip().is_unspecified());
        advertised.or_else(|| bound.map(|listen| listen.ip().to_string()))
    });
    for (profile, draft) in drafts {
        let listen = draft.listen.unwrap_or_else(|| default_address(profile));
        let advertise = draft.advertise.unwrap_or_else(|| {
            if listen.ip().is_unspecified() {
                let host = peer_host.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
                format!("{host}:{}", listen.port())
            } else {
                listen.to_string()
            }
        });
        if profile == Profile::Peer && listen.ip().is_unspecified() && peer_host.is_none() {
            let what =
                format!("listening on {listen} needs `advertise`: host:port for other members");
            tree.fault("listeners", what);
        }
        if let Some(other) = all.values().find(|other| other.listen == listen && listen.port() != 0)
        {
            let (one, two) = (other.profile.as_str(), profile.as_str());
            tree.fault("listeners", format!("{one} and {two} both listen on {listen}"));
        }
        all.insert(profile, Listener { profile, listen, advertise });
    }
    let mut take = |profile| all.remove(&profile);
    let http = take(Profile::Web4ai).expect("its draft is made first");
    let peer = take(Profile::Peer).expect("its draft is made first");
    let grpc = take(Profile::Grpc);
    Listeners { http, peer, grpc, more: all.into_values().collect() }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let text = text.replacen("localhost:", "127.0.0.1:", 1);
    text.parse().map_err(|_| format!("must be ip:port, not `{text}`"))
}

/// Whether `text` is an address others can connect to.
pub(super) fn check_host_port(text: &str) -> Result<(), String> {
    let good = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains("://")
            && !["0.0.0.0", "[::]"].contains(&host)
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if good {
        Ok(())
    } else {
        Err(format!("must be host:port that others can reach, not `{text}`"))
    }
}
