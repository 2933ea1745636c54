//! The network of a run: a namespace for every member, and in this process's own namespace one port
//! per member, one for the clients and one for the fake workers. Nobody resolves addresses: all
//! neighbours are known for good, so that a lost ARP frame is no fault of its own.

use std::net::{IpAddr, Ipv4Addr};

use super::command::run;
use super::enter::Tier;
use super::switch::mac;

/// The last byte of an address: members count from 1.
const CLIENTS: u8 = 254;
const WORKERS: u8 = 253;
/// The route table of what the workers send.
const WORKERS_TABLE: &str = "77";

/// The address of a port.
pub(crate) fn address(port: usize, members: usize) -> IpAddr {
    let last = match port.checked_sub(members) {
        None => u8::try_from(port + 1).expect("a cluster has fewer than nine members"),
        Some(0) => CLIENTS,
        Some(_) => WORKERS,
    };
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, last))
}

/// The namespace of a member.
pub(crate) fn namespace(member: usize) -> String {
    format!("m{}", member + 1)
}

/// Builds namespaces, cables and addresses; gives the names of the ports in their order.
///
/// # Errors
/// When one of the commands fails.
pub(crate) fn build(members: usize, tier: Tier) -> anyhow::Result<Vec<String>> {
    // Names of namespaces and of shared memory stay among ourselves.
    for place in ["/run", "/dev/shm"] {
        run(&["mount", "-t", "tmpfs", "jepsen", place])?;
    }
    run(&["ip", "link", "set", "lo", "up"])?;
    if tier == Tier::Bridge {
        let kind = ["type", "bridge", "stp_state", "0", "forward_delay", "0"];
        run(&[&["ip", "link", "add", "br0"], &kind[..]].concat())?;
        run(&["ip", "link", "set", "br0", "up"])?;
    }
    for member in 0..members {
        plug_member(member, members, tier)?;
    }
    match tier {
        Tier::Bridge => {
            for port in [members, members + 1] {
                let address = format!("{}/24", address(port, members));
                run(&["ip", "addr", "add", &address, "dev", "br0"])?;
            }
        }
        Tier::Switch | Tier::Proxy => plug_ourselves(members)?,
    }
    let ports = (0..members).map(|member| format!("p{member}"));
    Ok(ports.chain(["c0".to_owned(), "w0".to_owned()]).collect())
}

fn plug_member(member: usize, members: usize, tier: Tier) -> anyhow::Result<()> {
    let (name, port) = (namespace(member), format!("p{member}"));
    let inside = |words: &[&str]| run(&[&["ip", "-n", &name], words].concat());
    run(&["ip", "netns", "add", &name])?;
    let peer = ["type", "veth", "peer", "name", "eth0", "netns", &name];
    run(&[&["ip", "link", "add", &port], &peer[..]].concat())?;
    inside(&["link", "set", "lo", "up"])?;
    inside(&["link", "set", "eth0", "address", &mac(member), "up"])?;
    inside(&["addr", "add", &format!("{}/24", address(member, members)), "dev", "eth0"])?;
    if tier == Tier::Bridge {
        run(&["ip", "link", "set", &port, "master", "br0", "up"])?;
        return Ok(());
    }
    // The kernel must not answer for us on a port: it is the switch's.
    run(&["ip", "link", "set", &port, "arp", "off", "up"])?;
    for other in (0..members + 2).filter(|other| *other != member) {
        let (to, at) = (address(other, members).to_string(), mac(other));
        inside(&["neigh", "add", &to, "lladdr", &at, "dev", "eth0", "nud", "permanent"])?;
    }
    Ok(())
}

/// The clients' and the workers' own ends, each a cable to a port of the switch.
fn plug_ourselves(members: usize) -> anyhow::Result<()> {
    for (port, outer, inner) in [(members, "c0", "c1"), (members + 1, "w0", "w1")] {
        run(&["ip", "link", "add", outer, "type", "veth", "peer", "name", inner])?;
        run(&["ip", "link", "set", outer, "arp", "off", "up"])?;
        run(&["ip", "link", "set", inner, "address", &mac(port), "up"])?;
        for member in 0..members {
            let (to, at) = (address(member, members).to_string(), mac(member));
            run(&["ip", "neigh", "add", &to, "lladdr", &at, "dev", inner, "nud", "permanent"])?;
        }
    }
    let clients = format!("{}/24", address(members, members));
    run(&["ip", "addr", "add", &clients, "dev", "c1"])?;
    // What is sent from the workers' address leaves by the workers' port.
    let workers = address(members + 1, members).to_string();
    run(&["ip", "addr", "add", &format!("{workers}/32"), "dev", "w1"])?;
    let route = ["10.77.0.0/24", "dev", "w1", "src", &workers, "table", WORKERS_TABLE];
    run(&[&["ip", "route", "add"], &route[..]].concat())?;
    run(&["ip", "rule", "add", "from", &workers, "lookup", WORKERS_TABLE])?;
    Ok(())
}

/// Takes away what [`build`] made, so that another world may be built.
pub(crate) fn tear_down(members: usize) {
    // Each of these fails when it is not there, which is what is wanted.
    for member in 0..members {
        let _ = run(&["ip", "link", "del", &format!("p{member}")]);
        let _ = run(&["ip", "netns", "del", &namespace(member)]);
    }
    for device in ["c0", "w0", "br0"] {
        let _ = run(&["ip", "link", "del", device]);
    }
    let workers = address(members + 1, members).to_string();
    let _ = run(&["ip", "rule", "del", "from", &workers, "lookup", WORKERS_TABLE]);
    for place in ["/dev/shm", "/run"] {
        let _ = run(&["umount", "-l", place]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_clients_and_workers_have_addresses_of_their_own() {
        let all: Vec<_> = (0..7).map(|port| address(port, 5).to_string()).collect();
        assert_eq!(all[0], "10.77.0.1");
        assert_eq!(all[4..], ["10.77.0.5", "10.77.0.254", "10.77.0.253"]);
    }
}
