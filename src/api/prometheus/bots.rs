//! Figures of bots. All of it stands in the replicated state: every member says the same at the same
//! index. Tiers and swarms are named by clients and may be many, so the biggest are shown.

use super::Page;
use crate::state::{Figures, State as Tables};

/// Swarms, and tiers, that have lines of their own.
const SHOWN_MAX: usize = 100;

pub(super) fn write_state(page: &mut Page, state: &Tables) {
    let (stats, totals) = (state.bot_stats(), *state.bot_totals());
    let mut tiers = stats.tiers;
    biggest(&mut tiers);
    page.family("quorate_bots", "gauge", "Bots, those of swarms included, by tier.");
    for (tier, figures) in &tiers {
        page.line("quorate_bots", &[("tier", tier)], figures.bots);
    }
    page.one("quorate_bot_capacity", "gauge", "Bots there may be.", stats.capacity);
    page.one("quorate_swarms", "gauge", "Swarms.", stats.swarms);
    let help = "Bots ever made.";
    page.one("quorate_bots_created_total", "counter", help, stats.created);
    let name = "quorate_bot_assignments_total";
    page.family(name, "counter", "Assignments of bots, made and ended, by their end.");
    for (word, count) in
        [("assigned", totals.assigned), ("completed", totals.completed), ("failed", totals.failed)]
    {
        page.line(name, &[("state", word)], count);
    }
    let help = "Assignments of bots: those that wait or are leased, and those that bots of the \
                tier that are there completed or gave up.";
    write_assignments(page, ("quorate_bot_assignments", help), "tier", &tiers);
    write_swarms(page, state);
    write_workflows(page, state);
}

/// The biggest, in their order.
fn biggest<K: Ord + Clone>(rows: &mut Vec<(K, Figures)>) {
    if rows.len() > SHOWN_MAX {
        rows.sort_by(|(one, a), (other, b)| b.bots.cmp(&a.bots).then_with(|| one.cmp(other)));
        rows.truncate(SHOWN_MAX);
        rows.sort_by(|(one, _), (other, _)| one.cmp(other));
    }
}

fn write_assignments(
    page: &mut Page,
    (name, help): (&str, &str),
    label: &str,
    rows: &[(impl AsRef<str>, Figures)],
) {
    page.family(name, "gauge", help);
    for (key, figures) in rows {
        for (word, count) in [
            ("waiting", figures.waiting),
            ("leased", figures.leased),
            ("completed", figures.completed),
            ("failed", figures.failed),
        ] {
            page.line(name, &[(label, key.as_ref()), ("state", word)], count);
        }
    }
}

fn write_swarms(page: &mut Page, state: &Tables) {
    let numbers = state.swarms_after(0).map(|(number, _)| number);
    let mut swarms: Vec<_> = numbers.map(|number| (number, state.swarm_figures(number))).collect();
    biggest(&mut swarms);
    let named =
        swarms.into_iter().map(|(number, figures)| (state.swarm_id(number).to_string(), figures));
    let swarms: Vec<(String, Figures)> = named.collect();
    page.family("quorate_swarm_bots", "gauge", "Bots of the 100 biggest swarms.");
    for (swarm, figures) in &swarms {
        page.line("quorate_swarm_bots", &[("swarm", swarm)], figures.bots);
    }
    let help = "Assignments of the 100 biggest swarms, as those of tiers.";
    write_assignments(page, ("quorate_swarm_assignments", help), "swarm", &swarms);
}

fn write_workflows(page: &mut Page, state: &Tables) {
    let (running, ended) = state.workflows_len();
    page.one("quorate_workflows_running", "gauge", "Workflows under way.", running);
    page.one("quorate_workflows_ended", "gauge", "Workflows that ended and are retained.", ended);
    let made = state.bot_totals().workflows;
    page.one("quorate_workflows_total", "counter", "Workflows ever made.", made);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_biggest_are_shown_in_their_order() {
        let row = |number: u32| (number, Figures { bots: u64::from(number), ..Figures::default() });
        let mut few: Vec<_> = (0..100).map(row).collect();
        biggest(&mut few);
        assert_eq!(few.len(), 100);
        let mut many: Vec<_> = (0..1000).map(row).collect();
        biggest(&mut many);
        let numbers: Vec<u32> = many.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (900..1000).collect::<Vec<_>>());
    }
}
