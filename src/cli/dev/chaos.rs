//! `quorate dev --chaos`: a person breaks the local cluster line by line and watches.
//!
//! Faults are caused through the same doors as those of drills, as leases that are renewed here:
//! when this program ends, however it ends, the members heal within seconds. A probe writes ten
//! times a second, so that the status line can tell what clients notice.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::AbortOnDrop;
use crate::cli::children::Children;
use crate::cli::output;
use crate::client::{Call, Client, ClientError, Options};
use crate::clock;
use crate::drill::{Admin, ClusterView};
use crate::model::DrillState;

/// How long a fault lasts unless it is renewed, and how often it is.
const LEASE_MS: u64 = 4000;
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// Between two probes, and between two looks at the cluster.
const PROBE_EVERY: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Chaos keeps drills out for so long.
const LEASE: Duration = Duration::from_secs(4 * 3600);
/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(3);

const HELP: &str = "  kill N          kill -9 of member N; it stays down
  start N         starts it again
  pause N         member N hangs: peers and clients wait for it
  resume N        ends that
  cut A B [in|out]  cuts the link between A and B: both ways, what A gets, what A sends
  mend A B        ends that
  slow N MS       each flush of N's log takes MS longer; 0 ends it
  heal            ends all faults and starts who is down
  transfer [N]    hands the office over
  leader, status  who leads, who is where
  quit            stops everything";

/// A line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Order {
    Kill(u64),
    Start(u64),
    Pause(u64),
    Resume(u64),
    Cut(u64, u64, &'static [&'static str]),
    Mend(u64, u64),
    Slow(u64, u64),
    Heal,
    Transfer(Option<u64>),
    Status,
    Help,
    Quit,
    Nothing,
}

const BOTH: &[&str] = &["in", "out"];

fn parse(line: &str) -> Result<Order, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |word: &str| {
        let digits = word.trim_start_matches(['m', 'M']);
        digits.parse::<u64>().map_err(|_| format!("`{word}` is no member"))
    };
    Ok(match words.as_slice() {
        [] => Order::Nothing,
        ["kill", n] => Order::Kill(number(n)?),
        ["start", n] => Order::Start(number(n)?),
        ["pause", n] => Order::Pause(number(n)?),
        ["resume", n] => Order::Resume(number(n)?),
        ["cut", a, b] => Order::Cut(number(a)?, number(b)?, BOTH),
        ["cut", a, b, "in"] => Order::Cut(number(a)?, number(b)?, &["in"]),
        ["cut", a, b, "out"] => Order::Cut(number(a)?, number(b)?, &["out"]),
        ["mend", a, b] => Order::Mend(number(a)?, number(b)?),
        ["slow", n, ms] => Order::Slow(number(n)?, number(ms)?),
        ["heal"] => Order::Heal,
        ["transfer"] => Order::Transfer(None),
        ["transfer", n] => Order::Transfer(Some(number(n)?)),
        ["leader" | "status"] => Order::Status,
        ["help" | "?"] => Order::Help,
        ["quit" | "exit" | "q"] => Order::Quit,
        _ => return Err(format!("`{line}` is no order; try help")),
    })
}

/// What the probe sees.
#[derive(Debug)]
struct Meter {
    /// Acknowledged in the last second, newest last.
    recent: Vec<Instant>,
    last: Instant,
    /// The longest silence since the last order.
    longest: Duration,
}

/// A fault on a member: what it is called here, and how the member is asked for it.
type Leases = Arc<Mutex<BTreeMap<(u64, String), Value>>>;

pub(super) struct Chaos {
    admin: Admin,
    drill_id: u64,
    leases: Leases,
    meter: Arc<Mutex<Meter>>,
    view: ClusterView,
    /// Whether the screen can be drawn on.
    terminal: bool,
    _tasks: [AbortOnDrop; 2],
}

impl Chaos {
    /// Opens the record, so that no drill begins meanwhile.
    pub(super) async fn start(urls: Vec<String>, key: &str) -> anyhow::Result<Self> {
        let options = Options { urls, admin_key: Some(key.to_owned()), ..Options::default() };
        let seen = Admin::look(&options, true).await?;
        let admin = seen.admin;
        let left = seen.facts.accounts.values().flatten().find_map(|account| account.running);
        if let Some(left) = left {
            let text = "an earlier run ended without a word";
            admin.end(left, DrillState::Aborted, text, &Value::Null).await?;
        }
        let (drill_id, index) = admin.begin_chaos("quorate dev --chaos", LEASE).await?;
        let leases = Leases::default();
        let now = Instant::now();
        let meter = Meter { recent: Vec::new(), last: now, longest: Duration::ZERO };
        let meter = Arc::new(Mutex::new(meter));
        let renewing = renew(admin.clone(), (drill_id, index), Arc::clone(&leases));
        let probing = probe(Client::new(&probe_options(&options))?, Arc::clone(&meter));
        Ok(Self {
            admin,
            drill_id,
            leases,
            meter,
            view: seen.facts.view,
            terminal: std::io::stdout().is_terminal(),
            _tasks: [AbortOnDrop(tokio::spawn(renewing)), AbortOnDrop(tokio::spawn(probing))],
        })
    }

    /// Takes orders until `quit` or the end of the input.
    pub(super) async fn run(mut self, children: &mut Children) -> anyhow::Result<()> {
        let mut lines = read_lines();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        output::line("");
        self.say(&format!("Break it. Orders:\n{HELP}"));
        loop {
            let line = tokio::select! {
                biased;
                line = lines.recv() => line.unwrap_or_else(|| "quit".to_owned()),
                said = children.tend() => {
                    let said = said?;
                    self.say(&said);
                    continue;
                }
                _ = looks.tick() => {
                    if let Ok(view) = timeout(LOOK_EVERY, self.admin.cluster()).await
                        && let Ok(view) = view
                    {
                        self.view = view;
                    }
                    self.redraw();
                    continue;
                }
            };
            let order = parse(&line);
            if order == Ok(Order::Quit) {
                break;
            }
            self.meter.lock().longest = Duration::ZERO;
            let said = match order {
                Ok(order) => self.obey(order, children).await.unwrap_or_else(|e| format!("{e:#}")),
                Err(what) => what,
            };
            self.say(&said);
        }
        self.farewell().await;
        Ok(())
    }

    async fn obey(&self, order: Order, children: &mut Children) -> anyhow::Result<String> {
        Ok(match order {
            Order::Kill(n) => {
                children.kill(&process(n)).await?;
                format!("member {n} is killed")
            }
            Order::Start(n) => {
                children.start_again(&process(n))?;
                format!("member {n} is started")
            }
            Order::Heal => {
                self.leases.lock().clear();
                self.admin.heal(None).await;
                let names = self.view.members.iter().filter_map(|member| number_of(&member.name));
                let down = names.map(process).filter(|name| !children.runs(name));
                for name in down.collect::<Vec<_>>() {
                    children.start_again(&name)?;
                }
                "everything is healed, and who was down is started".to_owned()
            }
            Order::Transfer(to) => {
                let to = to.map(|to| self.id(to)).transpose()?.map(|id| id.to_string());
                let call = Call::post("/api/v1/cluster/transfer-leader", &json!({ "to": to }));
                self.admin.all().call(call.deadline(FAREWELL * 2)).await?;
                "the office is handed over".to_owned()
            }
            Order::Pause(_)
            | Order::Resume(_)
            | Order::Cut(..)
            | Order::Mend(..)
            | Order::Slow(..) => self.obey_fault(order).await?,
            Order::Status => self.status(),
            Order::Help => HELP.to_owned(),
            Order::Quit | Order::Nothing => String::new(),
        })
    }

    /// What is broken on members that go on running.
    async fn obey_fault(&self, order: Order) -> anyhow::Result<String> {
        Ok(match order {
            Order::Pause(n) => {
                let fault = json!({ "fault": "silence", "clients": "hang" });
                self.cause(n, "paused".to_owned(), fault)?;
                format!("member {n} hangs")
            }
            Order::Resume(n) => self.end(n, "fault=silence", |name| name == "paused").await?,
            Order::Cut(a, b, ways) => {
                let peer = self.id(b)?;
                for way in ways {
                    let fault = json!({ "fault": "cut", "peer": peer, "direction": way });
                    self.cause(a, format!("cut {way} {b}"), fault)?;
                }
                format!("the link between {a} and {b} is cut ({})", ways.join(" and "))
            }
            Order::Mend(a, b) => {
                for (at, other) in [(a, b), (b, a)] {
                    let peer = self.id(other)?;
                    for way in BOTH {
                        let query = format!("fault=cut&peer={peer}&direction={way}");
                        self.end(at, &query, |name| name == format!("cut {way} {other}")).await?;
                    }
                }
                format!("the link between {a} and {b} is whole")
            }
            Order::Slow(n, 0) => self.end(n, "fault=slow-disk", |name| name == "slow").await?,
            Order::Slow(n, ms) => {
                let fault = json!({ "fault": "slow-disk", "delay_ms": ms.min(2000) });
                self.cause(n, "slow".to_owned(), fault)?;
                format!("each flush of member {n} takes {} ms longer", ms.min(2000))
            }
            _ => String::new(),
        })
    }

    /// The number in the cluster of the member that is called `n` here.
    fn id(&self, n: u64) -> anyhow::Result<u64> {
        let found = self.view.members.iter().find(|member| number_of(&member.name) == Some(n));
        found.map(|member| member.id).ok_or_else(|| anyhow!("there is no member {n}"))
    }

    fn cause(&self, n: u64, name: String, fault: Value) -> anyhow::Result<()> {
        // The next renewal causes it, at once for a person.
        self.leases.lock().insert((self.id(n)?, name), fault);
        Ok(())
    }

    async fn end(
        &self,
        n: u64,
        query: &str,
        which: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        let id = self.id(n)?;
        self.leases.lock().retain(|(member, name), _| *member != id || !which(name));
        let call = Call::delete(format!("/api/v1/admin/faults?{query}")).deadline(FAREWELL);
        self.admin.call(id, call).await.with_context(|| format!("healing member {n}"))?;
        Ok(format!("member {n} is healed"))
    }

    async fn farewell(&self) {
        self.leases.lock().clear();
        let text = "ended by its person";
        let farewell = async {
            self.admin.heal(None).await;
            self.admin.end(self.drill_id, DrillState::Aborted, text, &Value::Null).await
        };
        if !matches!(timeout(FAREWELL, farewell).await, Ok(Ok(()))) {
            output::talk("the record of this chaos stays open; the next run closes it");
        }
    }

    /// One line about everything.
    fn status(&self) -> String {
        let faults = self.leases.lock().clone();
        let mut parts = Vec::new();
        let leader = self.view.leader.and_then(|leader| self.view.member(leader));
        parts.push(match leader {
            Some(leader) => format!("{} leads term {}", leader.name, self.view.term),
            None => format!("nobody leads, term {}", self.view.term),
        });
        for member in &self.view.members {
            let own = faults.keys().filter(|(id, _)| *id == member.id).map(|(_, name)| name);
            let own: Vec<&str> = own.map(String::as_str).collect();
            let state = if own.is_empty() {
                member.state.clone()
            } else {
                format!("{} ({})", member.state, own.join(", "))
            };
            parts.push(format!("{} {state}", number_of(&member.name).unwrap_or(member.id)));
        }
        let meter = self.meter.lock();
        let second_ago = |at: &&Instant| at.elapsed() < Duration::from_secs(1);
        let rate = meter.recent.iter().filter(second_ago).count();
        let silence = meter.last.elapsed();
        parts.push(format!(
            "{rate} writes/s, silent for {:.1} s, longest {:.1} s",
            silence.as_secs_f64(),
            silence.max(meter.longest).as_secs_f64()
        ));
        parts.join(" | ")
    }

    /// Says something, with the status line and the prompt below it.
    fn say(&self, text: &str) {
        if !self.terminal {
            return output::line(&format!("{text}\n{}", self.status()));
        }
        let mut out = std::io::stdout().lock();
        // The terminal may be gone; then nobody reads this.
        let _ = write!(out, "\r\x1b[K\x1b[1A\r\x1b[K{text}\n{}\n> ", self.status());
        let _ = out.flush();
    }

    /// Draws the status line above the prompt anew and leaves what is being typed alone.
    fn redraw(&self) {
        if self.terminal {
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "\x1b7\x1b[1A\r\x1b[K{}\x1b8", self.status());
            let _ = out.flush();
        }
    }
}

/// What the process of a member is called here.
fn process(n: u64) -> String {
    format!("member {n}")
}

/// The number in a name like `member-2`.
fn number_of(name: &str) -> Option<u64> {
    name.rsplit_once('-')?.1.parse().ok()
}

/// Lines of standard input. Reading blocks, so a thread of its own does it.
fn read_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn renew(admin: Admin, (drill_id, index): (u64, u64), leases: Leases) {
    let mut known = 0;
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = leases.lock().clone();
        if now.len() <= known && renewed.elapsed() < RENEW_EVERY {
            known = now.len();
            continue;
        }
        (known, renewed) = (now.len(), Instant::now());
        for ((member, _), fault) in now {
            let mut body = fault;
            body["drill_id"] = drill_id.into();
            body["index"] = index.into();
            body["lasting_ms"] = LEASE_MS.into();
            // Breaking too much is what this is for.
            body["force"] = true.into();
            let call = Call::post("/api/v1/admin/faults", &body).deadline(RENEW_EVERY);
            if let Err(error) = admin.call(member, call).await {
                tracing::debug!(%error, member, "a fault could not be renewed");
            }
        }
    }
}

/// A member that hangs is left soon: a person watches.
fn probe_options(options: &Options) -> Options {
    Options {
        deadline: Duration::from_secs(15),
        try_timeout: Duration::from_secs(1),
        ..options.clone()
    }
}

/// Writes the same thing again and again, each time as a write of its own.
async fn probe(client: Client, meter: Arc<Mutex<Meter>>) {
    let node = "chaos-probe";
    let register = Call::post(format!("/api/v1/nodes/{node}/register"), &json!({ "host": "-" }));
    if let Err(error) = client.call(register).await {
        tracing::warn!(%error, "the probe could not register");
    }
    let mut ticks = interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let room = Arc::new(tokio::sync::Semaphore::new(64));
    loop {
        ticks.tick().await;
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (client, meter) = (client.clone(), Arc::clone(&meter));
        tokio::spawn(async move {
            let body = json!({ "status": "maintenance" });
            let call = Call::put(format!("/api/v1/nodes/{node}/status"), &body);
            let written: Result<_, ClientError> =
                client.call(call.key(clock::mint_request_id().to_string())).await;
            if written.is_ok() {
                meter.lock().acknowledged();
            }
            drop(place);
        });
    }
}

impl Meter {
    fn acknowledged(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last);
        self.last = now;
        self.recent.retain(|at| now - *at < Duration::from_secs(2));
        self.recent.push(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_understood() {
        for (line, order) in [
            ("kill 2", Order::Kill(2)),
            ("  pause   m3 ", Order::Pause(3)),
            ("cut 1 2", Order::Cut(1, 2, BOTH)),
            ("cut 1 2 out", Order::Cut(1, 2, &["out"])),
            ("slow 2 150", Order::Slow(2, 150)),
            ("transfer", Order::Transfer(None)),
            ("transfer 2", Order::Transfer(Some(2))),
            ("", Order::Nothing),
            ("q", Order::Quit),
        ] {
            assert_eq!(parse(line), Ok(order), "{line}");
        }
        for line in ["kill", "kill x", "cut 1", "cut 1 2 up", "explode"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn members_are_called_by_their_number_here() {
        assert_eq!(number_of("member-3"), Some(3));
        assert_eq!(number_of("other"), None);
    }
}
