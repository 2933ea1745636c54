//! The second network tier: the kernel's own bridge, with nftables to drop. It can cut, lose and
//! limit; it cannot delay, reorder or duplicate.

use anyhow::ensure;
use parking_lot::Mutex;

use super::command;
use super::links::{Counts, Matrix, Shape};

/// Where the clients' and the workers' end of the network is, on a bridge the same interface: they
/// are told apart by address.
#[derive(Debug)]
pub(crate) struct Bridge {
    members: usize,
    clients: String,
    workers: String,
    /// Drops of rules that were replaced since.
    dropped: Mutex<u64>,
}

const TABLE: &str = "quorate_jepsen";

impl Bridge {
    /// # Errors
    /// Without nftables.
    pub(crate) fn start(members: usize, clients: &str, workers: &str) -> anyhow::Result<Self> {
        let bridge = Self {
            members,
            clients: clients.to_owned(),
            workers: workers.to_owned(),
            dropped: Mutex::new(0),
        };
        bridge.apply(&Matrix::new(members))?;
        Ok(bridge)
    }

    /// Replaces all rules at once.
    ///
    /// # Errors
    /// When the matrix asks for more than a bridge can do, or nft refuses.
    pub(crate) fn apply(&self, matrix: &Matrix) -> anyhow::Result<()> {
        let asks_too_much = matrix.touched().any(|(_, _, shape)| shape.needs_queue());
        ensure!(!asks_too_much, "a bridge cannot delay, reorder or duplicate");
        let before = self.rules_dropped();
        command::run_with_input(&["nft", "-f", "-"], &self.ruleset(matrix))?;
        *self.dropped.lock() += before;
        Ok(())
    }

    pub(crate) fn counts(&self) -> Counts {
        let dropped = *self.dropped.lock() + self.rules_dropped();
        Counts { dropped, ..Counts::default() }
    }

    fn rules_dropped(&self) -> u64 {
        let listed = command::run(&["nft", "list", "table", "bridge", TABLE]).unwrap_or_default();
        let counters = listed.split("counter packets ").skip(1);
        counters.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum()
    }

    fn ruleset(&self, matrix: &Matrix) -> String {
        let (mut forward, mut input, mut output) = (String::new(), String::new(), String::new());
        for (from, to, shape) in matrix.touched() {
            let chain = match (from < self.members, to < self.members) {
                (true, true) => &mut forward,
                (true, false) => &mut input,
                (false, true) => &mut output,
                (false, false) => continue,
            };
            for action in actions(shape) {
                chain.push_str(&format!("    {} {action};\n", self.matching(from, to)));
            }
        }
        format!(
            "table bridge {TABLE} {{ }};\ndelete table bridge {TABLE};\ntable bridge {TABLE} {{\n\
             chain f {{ type filter hook forward priority -300; policy accept;\n{forward} }};\n\
             chain i {{ type filter hook input priority -300; policy accept;\n{input} }};\n\
             chain o {{ type filter hook output priority -300; policy accept;\n{output} }};\n}};\n"
        )
    }

    fn matching(&self, from: usize, to: usize) -> String {
        let local = |port: usize| if port == self.members { &self.clients } else { &self.workers };
        match (from < self.members, to < self.members) {
            (true, true) => format!("iifname \"p{from}\" oifname \"p{to}\""),
            (true, false) => format!("iifname \"p{from}\" ip daddr {}", local(to)),
            (false, _) => format!("oifname \"p{to}\" ip saddr {}", local(from)),
        }
    }
}

fn actions(shape: Shape) -> Vec<String> {
    let mut actions = Vec::new();
    if shape.cut {
        return vec!["counter drop".to_owned()];
    }
    if shape.loss_percent > 0 {
        let loss = shape.loss_percent;
        actions.push(format!("numgen random mod 100 < {loss} counter drop"));
    }
    if shape.rate_kbit > 0 {
        let bytes = shape.rate_kbit * 125;
        actions.push(format!("limit rate over {bytes} bytes/second counter drop"));
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::links::{Layers, Port};

    #[test]
    fn every_kind_of_link_gets_its_rule() {
        let layers = Layers::new(3);
        let lossy = Shape { loss_percent: 20, ..Shape::default() };
        let matrix = layers.add(
            1,
            vec![
                ((Port::Member(0), Port::Member(2)), Shape::CUT),
                ((Port::Clients, Port::Member(1)), lossy),
                ((Port::Member(1), Port::Workers), Shape::CUT),
            ],
        );
        let bridge = Bridge {
            members: 3,
            clients: "10.77.0.254".to_owned(),
            workers: "10.77.0.253".to_owned(),
            dropped: Mutex::new(0),
        };
        let rules = bridge.ruleset(&matrix);
        for rule in [
            "iifname \"p0\" oifname \"p2\" counter drop;",
            "oifname \"p1\" ip saddr 10.77.0.254 numgen random mod 100 < 20 counter drop;",
            "iifname \"p1\" ip daddr 10.77.0.253 counter drop;",
        ] {
            assert!(rules.contains(rule), "{rule} is not in:\n{rules}");
        }
    }

    #[test]
    fn a_delay_is_refused() {
        let slow = Shape { delay_ms: 5, ..Shape::default() };
        let matrix = Layers::new(3).add(1, vec![((Port::Member(0), Port::Member(1)), slow)]);
        let bridge = Bridge {
            members: 3,
            clients: String::new(),
            workers: String::new(),
            dropped: Mutex::new(0),
        };
        assert!(bridge.apply(&matrix).is_err());
    }
}
