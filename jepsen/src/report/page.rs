//! The page.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::svg::{Axis, escape};
use super::{lanes, plots};
use crate::checker::{Validity, Verdict, availability, worst};
use crate::history::{Call, History, Kind};

/// Findings of one verdict that show without a click.
const FINDINGS_IN_SIGHT: usize = 4;
/// Lines of the history that are shown of one verdict.
const LINES_MAX: usize = 40;

/// The whole page, with style and pictures inside.
pub(super) fn page(history: &History, verdicts: &[Verdict], facts: &Value) -> String {
    let validity = worst(verdicts).as_str();
    let name = facts["name"].as_str().unwrap_or("run");
    let calls = history.all_calls();
    let axis = Axis::new(0, history.end_ns());
    let mut out = String::with_capacity(1 << 20);
    let _ = write!(
        out,
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>\
         <meta name='viewport' content='width=device-width,initial-scale=1'>\
         <title>{validity}: {name}, seed {seed}</title><style>{style}</style></head><body><main>\
         <header><span class='badge {validity}'>{validity}</span><h1>{name}\
         <small>seed {seed} · {seconds:.0} s · {count} operations</small></h1></header>",
        name = escape(name),
        seed = escape(&facts["seed"].to_string()),
        style = include_str!("style.css"),
        seconds = axis.seconds(),
        count = calls.len(),
    );
    facts_section(&mut out, facts, &calls);
    verdict_section(&mut out, verdicts);
    picture_section(&mut out, axis, history, &calls);
    outage_section(&mut out, history);
    failing_section(&mut out, history, verdicts);
    out.push_str(
        "<footer>Made by the project's own harness, in the manner of Jepsen; Jepsen itself did not \
         run. The history beside this page can be checked again, and its EDN form be given to \
         Knossos and Elle.</footer></main></body></html>",
    );
    out
}

/// A fact in a few words.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Array(list) => list.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}

fn facts_section(out: &mut String, facts: &Value, calls: &[Call<'_>]) {
    out.push_str("<section><dl class='facts'>");
    let mut fact = |name: &str, value: &str| {
        let wide = if value.len() > 60 { " class='wide'" } else { "" };
        let _ = write!(out, "<div{wide}><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
    };
    let count = |kind: Kind| calls.iter().filter(|call| call.kind() == kind).count();
    let outcomes = format!(
        "{} ok, {} failed, {} unknown",
        count(Kind::Ok),
        count(Kind::Fail),
        count(Kind::Info)
    );
    fact("operations", &outcomes);
    let own = ["name", "seed", "repeat"];
    for (name, value) in facts.as_object().into_iter().flatten() {
        if !own.contains(&name.as_str()) {
            fact(name, &words(value));
        }
    }
    out.push_str("</dl>");
    if let Some(repeat) = facts["repeat"].as_str().filter(|repeat| !repeat.is_empty()) {
        let _ = write!(out, "<pre title='Repeats this run'>{}</pre>", escape(repeat));
    }
    out.push_str("</section>");
}

fn verdict_section(out: &mut String, verdicts: &[Verdict]) {
    out.push_str(
        "<section><h2>Verdicts</h2><table><tr><th>workload</th><th>property</th><th></th>\
         <th>what was looked at</th></tr>",
    );
    let mut before = "";
    for verdict in verdicts {
        let group = if verdict.workload == before { "" } else { verdict.workload.as_str() };
        before = &verdict.workload;
        let validity = verdict.validity.as_str();
        let _ = write!(
            out,
            "<tr><td class='group'>{}</td><td>{}</td><td><span class='pill {validity}'>{validity}\
             </span></td><td>{}",
            escape(group),
            escape(&verdict.property),
            escape(&verdict.summary)
        );
        findings(out, &verdict.findings);
        out.push_str("</td></tr>");
    }
    out.push_str("</table></section>");
}

/// The first few in sight, the others behind a click.
fn findings(out: &mut String, findings: &[String]) {
    let list = |out: &mut String, part: &[String]| {
        out.push_str("<ul class='findings'>");
        for finding in part {
            let _ = write!(out, "<li>{}</li>", escape(finding));
        }
        out.push_str("</ul>");
    };
    let (first, others) = findings.split_at(findings.len().min(FINDINGS_IN_SIGHT));
    if !first.is_empty() {
        list(out, first);
    }
    if !others.is_empty() {
        let _ = write!(out, "<details><summary>{} more</summary>", others.len());
        list(out, others);
        out.push_str("</details>");
    }
}

fn picture_section(out: &mut String, axis: Axis, history: &History, calls: &[Call<'_>]) {
    let legend = [
        ("var(--ok)", "ok"),
        ("var(--fail)", "failed: certainly not done"),
        ("var(--info)", "unknown outcome"),
        ("#c3cedb", "fault in force"),
        ("#215f9a", "median latency"),
        ("#6f9fd0", "p99"),
        ("#c3cbd5", "slowest"),
    ];
    out.push_str("<section><h2>What happened</h2><div class='legend'>");
    for (colour, name) in legend {
        let _ = write!(out, "<span><i style='background:{colour}'></i>{name}</span>");
    }
    out.push_str("</div>");
    out.push_str(&plots::faults(axis, history));
    out.push_str(&plots::leaders(axis, history));
    out.push_str(&plots::rate(axis, history, calls));
    out.push_str(&plots::latency(axis, history, calls));
    out.push_str("<h3>Operations, one lane per client</h3>");
    out.push_str(&lanes::overview(axis, history, calls));
    out.push_str("</section>");
}

fn outage_section(out: &mut String, history: &History) {
    let (faults, outages) = (history.faults(), availability::outages(history));
    if faults.is_empty() {
        return;
    }
    out.push_str(
        "<section><h2>Faults and outages</h2><table><tr><th>fault</th><th>members</th>\
         <th class='num'>from</th><th class='num'>for</th><th class='num'>longest without a write\
         </th><th class='num'>first write after</th><th>how it is known to have worked</th></tr>",
    );
    for (fault, outage) in faults.iter().zip(&outages) {
        let seconds = |ns: u64| ns as f64 / 1e9;
        let lasted = fault.healed_ns.map_or_else(
            || "open".to_owned(),
            |end| format!("{:.1} s", seconds(end.saturating_sub(fault.begin_ns))),
        );
        let first =
            outage.first_write_ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.0} ms"));
        let effect = match (&fault.no_effect, &fault.evidence) {
            (Some(why), _) => format!("no effect: {why}"),
            (None, Some(evidence)) => evidence.clone(),
            (None, None) => "not known to have worked".to_owned(),
        };
        let members = fault.members.iter().map(|n| format!("m{n}")).collect::<Vec<_>>().join(" ");
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td class='num'>{:.1} s</td><td class='num'>{lasted}</td>\
             <td class='num'>{:.0} ms</td><td class='num'>{first}</td><td class='soft'>{}</td></tr>",
            escape(&fault.name),
            escape(&members),
            seconds(fault.begin_ns),
            outage.longest_gap_ms,
            escape(&effect)
        );
    }
    out.push_str("</table></section>");
}

/// The lines behind each violation, and a picture of the register that has no explanation.
fn failing_section(out: &mut String, history: &History, verdicts: &[Verdict]) {
    let by_index: BTreeMap<u64, usize> =
        history.ops.iter().enumerate().map(|(place, op)| (op.index, place)).collect();
    for verdict in verdicts.iter().filter(|verdict| verdict.validity == Validity::Invalid) {
        if verdict.ops.is_empty() {
            continue;
        }
        let title = format!("{}: {}", verdict.workload, verdict.property);
        let _ = write!(out, "<section><h2>Behind it: {}</h2>", escape(&title));
        let place = |index: &u64| by_index.get(index).map(|place| &history.ops[*place]);
        let lines: Vec<_> = verdict.ops.iter().filter_map(place).collect();
        let near = verdict.findings.iter().find_map(|finding| marked(finding));
        let key = lines.iter().find_map(|op| op.key.as_deref());
        if let (true, Some(key)) = (verdict.workload == "register", key) {
            out.push_str(&lanes::register(history, key, near.unwrap_or(lines[0].index)));
        }
        out.push_str(
            "<h3>Lines of the history</h3><table><tr><th class='num'>line</th><th class='num'>time\
             </th><th>who</th><th>what</th><th>key</th><th>value</th><th>member</th></tr>",
        );
        for op in lines.iter().take(LINES_MAX) {
            let value: String = op.value.to_string().chars().take(300).collect();
            let _ = write!(
                out,
                "<tr><td class='num'>{}</td><td class='num'>{:.3} s</td><td>{}</td><td>{}</td>\
                 <td>{}</td><td><code>{}</code></td><td>{}</td></tr>",
                op.index,
                op.time as f64 / 1e9,
                escape(&op.process.to_string()),
                escape(&op.f),
                escape(op.key.as_deref().unwrap_or_default()),
                escape(&value),
                op.node.map_or_else(String::new, |node| format!("m{node}")),
            );
        }
        out.push_str("</table>");
        if lines.len() > LINES_MAX {
            let _ = write!(out, "<p class='soft'>and {} more</p>", lines.len() - LINES_MAX);
        }
        out.push_str("</section>");
    }
}

/// The line that a finding points at: `#17 read ...`.
fn marked(finding: &str) -> Option<u64> {
    let (_, rest) = finding.split_once('#')?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
