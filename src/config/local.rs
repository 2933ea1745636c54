//! Several members on one machine: `quorate dev`, `cluster/local-cluster.sh`, tests.

use std::path::Path;

use super::Profile;

/// How far the ports of two neighbours are apart.
const STRIDE: u16 = 100;

/// The port of a profile of the `number`-th member (from 1) on one machine.
#[must_use]
pub fn local_ports(number: u16, profile: Profile) -> u16 {
    profile.default_port() + STRIDE * number.saturating_sub(1)
}

/// The file of the `number`-th of `count` members that live on one machine below `dir` and form a
/// cluster by themselves. With an admin key, it lets drills break it.
#[must_use]
pub fn local_member(number: u16, count: u16, dir: &Path, admin_key: Option<&str>) -> String {
    let address = |number, profile| format!("127.0.0.1:{}", local_ports(number, profile));
    let peers: Vec<String> =
        (1..=count).map(|n| format!("\"{}\"", address(n, Profile::Peer))).collect();
    // JSON text is YAML text, and quotes whatever a path may hold.
    let data = serde_json::Value::from(dir.join(format!("m{number}")).display().to_string());
    let drills = admin_key.map_or_else(String::new, |key| {
        format!("  admin_key: {key:?}\n  drills: {{ enabled: true, supervised: true }}\n")
    });
    let mut text = format!(
        "# Member {number} of {count} on one machine. All keys: cluster/member.yaml.\n\
         cluster:\n  name: member-{number}\n  data_dir: {data}\n  peers: [{}]\n  \
         bootstrap_expect: {count}\n{drills}listeners:\n",
        peers.join(", "),
    );
    for profile in [Profile::Web4ai, Profile::Grpc, Profile::Peer] {
        let (name, addr) = (profile.as_str(), address(number, profile));
        text.push_str(&format!("  - {{ profile: {name}, addr: \"{addr}\" }}\n"));
    }
    text
}
