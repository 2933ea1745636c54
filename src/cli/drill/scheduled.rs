//! Drills on a calendar. An orchestrator keeps the slots and the runs; what each of its runs does is one
//! task, which `quorate drill serve` takes; it conducts the drill and says what came of it.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, Parser};
use serde_json::{Value, json};

use super::args::{Keyed, Place, Subcommand};
use super::{Conducted, Failure, Output, conducted};
use crate::cli::orchestrator::Cadence;
use crate::cli::output;
use crate::client::{self, Call, Client, segment};
use crate::drill::Options;
use crate::model::DrillState;
use crate::worker;

/// The type of the task, and what a node must have to be given it.
const TASK_TYPE: &str = "drill";
/// Orchestrators of drills are called so, and then by their name.
const PREFIX: &str = "drill-";
/// What a drill may take beside its phases: restarts, and the work that must be done after it.
const SPARE_SECONDS: u64 = 1200;
/// Of its worker: the time between heartbeats, and what a drill under way gets to heal when it leaves.
const HEARTBEAT: Duration = Duration::from_secs(5);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest description of a drill, in bytes.
const INPUT_MAX: u64 = 64 * 1024;
/// The longest text about what came of a drill, in characters.
const SUMMARY_MAX: usize = 500;

const HELP: &str = "\
Runs of the schedule are tasks: start `quorate drill serve` somewhere, best on a machine of its own.
  quorate drill schedule weekly --cron '0 3 * * 0' --timezone Europe/Berlin -- failover --hold 10s
  quorate orchestrator slots --name drill-weekly      what became of each of its times
  quorate orchestrator runs --name drill-weekly       what came of the drills
  quorate orchestrator deactivate --name drill-weekly none for now";

/// `quorate drill schedule`.
#[derive(Debug, Args)]
#[command(after_help = HELP, group = ArgGroup::new("when").required(true).args(["cron", "every"]))]
pub(super) struct ScheduleArgs {
    /// Its name; the orchestrator drill-NAME keeps its slots and runs
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    #[command(flatten)]
    cadence: Cadence,
    /// What becomes of times that passed while nobody could decide them: skip, latest or all
    #[arg(long, default_value = "skip")]
    catch_up: String,
    /// The drill and its options, as they stand after `quorate drill`
    #[arg(last = true, required = true, value_name = "DRILL")]
    drill: Vec<String>,
}

/// `quorate drill serve`.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) key: Keyed,
    /// The name of this worker [default: a random one]
    #[arg(long)]
    node_id: Option<String>,
    /// Where it listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    listen: SocketAddr,
    /// host:port members reach it at [default: where it listens]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
}

/// The words of a drill, as a command line of their own.
#[derive(Debug, Parser)]
#[command(name = "drill", no_binary_name = true)]
struct Words {
    #[command(subcommand)]
    subcommand: Subcommand,
}

/// Reads the words of a drill, whose probe node takes dispatches at `place` unless they say where. Those
/// that would read or write files of the machine it is served on, or drill a cluster of their own, are
/// refused: they come from whoever may change orchestrators.
fn options_of(words: &[String], place: &Place) -> Result<Options, String> {
    let line = Words::try_parse_from(words).map_err(|error| error.to_string())?;
    let Some((common, mut options)) = line.subcommand.planned() else {
        return Err(format!("`{}` is no drill", words.first().map_or("", String::as_str)));
    };
    if common.local || common.dry_run || common.html.is_some() || common.key.names_a_file() {
        return Err(
            "--local, --dry-run, --html and --admin-key-file cannot be scheduled".to_owned()
        );
    }
    if options.node.is_some() {
        options.node = Some(common.place.or(place).node());
    }
    Ok(options)
}

/// Puts a drill on a calendar.
pub(super) async fn schedule(
    reach: client::Options,
    output: Output,
    args: ScheduleArgs,
) -> Result<ExitCode, Failure> {
    let options = options_of(&args.drill, &Place::default()).map_err(Failure::usage)?;
    // What is refused must not leave an orchestrator behind: they are for good.
    args.cadence.check()?;
    let client = Client::new(&reach)?;
    let name = format!("{PREFIX}{}", args.name);
    let query = format!("name={}", segment(&name));
    // Looking at an orchestrator makes it.
    client.call(Call::get(format!("/api/v1/orchestrator/state?{query}"))).await?;
    let mut schedule = json!({"catch_up": args.catch_up, "overlap": "forbid"});
    for (name, value) in args.cadence.settings() {
        schedule[name] = value;
    }
    let phases = options.before + options.hold + options.after;
    let body = json!({
        "mode": "SCHEDULED",
        "schedule": schedule,
        "description": format!("Drill: {}", args.drill.join(" ")),
        "task": {
            "task_type": TASK_TYPE,
            "input": {"drill": args.drill},
            "capabilities": [TASK_TYPE],
            "timeout": phases.as_secs() + SPARE_SECONDS,
            "max_retries": 0,
        },
    });
    let path = format!("/api/v1/orchestrator/config?{query}");
    let answer = client.call(Call::post(path, &body)).await?;
    match output {
        Output::Json => output::json(&answer.body),
        Output::Table => {
            output::line(&format!("{name}: {}", args.drill.join(" ")));
            output::talk("runs are tasks: `quorate drill serve` does them");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes drills that are due and conducts them, one at a time.
pub(super) fn serve(args: ServeArgs, reach: &client::Options) -> Result<ExitCode, Failure> {
    // Said at once, and not when the first drill is due. Keys go by the environment, which others on
    // the machine do not see.
    let admin_key = args.key.read(reach.admin_key.as_deref())?;
    let mut environment = vec![("QUORATE_ADMIN_KEY", admin_key)];
    environment.extend(reach.api_key.clone().map(|key| ("QUORATE_API_KEY", key)));
    let own = std::env::current_exe().map_err(Failure::failed)?;
    let program = program(&own, &reach.urls, &args.probe_place());
    let worker = worker::Options {
        node_id: args.node_id,
        programs: [(TASK_TYPE.to_owned(), program)].into(),
        environment,
        capabilities: Vec::new(),
        listen: args.listen,
        advertise: args.advertise,
        concurrency: 1,
        heartbeat: HEARTBEAT,
        drain_timeout: DRAIN_TIMEOUT,
        farewell: worker::Farewell::Remove,
    };
    crate::cli::worker::serve(worker, reach)
}

impl ServeArgs {
    /// Where a drill's probe node is reached by whoever reaches this worker: on a port beside its own.
    fn probe_place(&self) -> Place {
        let host_of = |text| str::rsplit_once(text, ':').map_or(text, |(host, _)| host);
        let host = self.advertise.as_deref().map(host_of);
        Place {
            listen: Some(SocketAddr::new(self.listen.ip(), 0)),
            // Without a port behind the colon, the one it listens on is meant.
            advertise: host.map(|host| format!("{host}:")),
        }
    }
}

/// The shell command that conducts one drill.
fn program(own: &Path, urls: &[String], place: &Place) -> String {
    let (own, urls) = (own.display().to_string(), urls.join(","));
    let listen = place.listen.map(|listen| listen.to_string());
    let mut words = vec![own.as_str(), "drill", "conduct", "--url", &urls];
    words.extend(listen.iter().flat_map(|listen| ["--listen", listen.as_str()]));
    words.extend(place.advertise.iter().flat_map(|advertise| ["--advertise", advertise.as_str()]));
    let quoted = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    quoted.collect::<Vec<_>>().join(" ")
}

/// Conducts the drill of one task, as its worker's program: its input is on standard input. What came of
/// it is the task's result, also when nothing could be done.
pub(super) async fn conduct(
    mut reach: client::Options,
    key: &Keyed,
    task_id: &str,
    place: &Place,
) -> Result<ExitCode, Failure> {
    reach.admin_key = Some(key.read(reach.admin_key.as_deref())?);
    let mut text = String::new();
    std::io::stdin().take(INPUT_MAX).read_to_string(&mut text).map_err(Failure::failed)?;
    let input = serde_json::from_str(&text).unwrap_or(Value::Null);
    let result = match done(reach, &input, task_id, place).await {
        Ok(result) => result,
        Err(failure) => json!({"success": false, "error": short(&failure.to_string())}),
    };
    output::json(&result);
    Ok(ExitCode::SUCCESS)
}

async fn done(
    reach: client::Options,
    input: &Value,
    task_id: &str,
    place: &Place,
) -> Result<Value, Failure> {
    // Whoever may submit tasks may not therefore break the cluster: only what an orchestrator
    // launched counts, and those are for operators to change.
    let run_id = input["run_id"].as_str().unwrap_or_default();
    let path = format!("/api/v1/orchestrator/runs/{}", segment(run_id));
    let run = Client::new(&reach)?.call(Call::get(path)).await?.body;
    if run["task_id"].as_str() != Some(task_id) || !run["completed_at"].is_null() {
        return Err(Failure::failed("the task is not that of a run that is under way"));
    }
    let words = input["drill"].as_array().into_iter().flatten();
    let words: Vec<String> = words.filter_map(Value::as_str).map(str::to_owned).collect();
    let options = options_of(&words, place).map_err(Failure::failed)?;
    let stop = super::ended_by_signals()?;
    let Conducted { report, state } = match conducted(&reach, &options, stop).await? {
        Ok(conducted) => conducted,
        Err(refusal) => {
            return Ok(json!({"success": false, "code": refusal.code, "error": refusal.text}));
        }
    };
    let reasons = report.pointer("/verdict/reasons").and_then(Value::as_array);
    let reasons = reasons.into_iter().flatten().filter_map(Value::as_str);
    let reasons = reasons.collect::<Vec<_>>().join("; ");
    Ok(json!({
        "success": state == DrillState::Passed,
        "drill_id": report["drill_id"],
        "state": state.as_str(),
        "kind": options.kind.as_str(),
        "summary": short(&format!("drill {}: {} {reasons}", report["drill_id"], state.as_str())),
        "write_gap_ms": report.pointer("/writes/gap_ms"),
        "lost": report.pointer("/lost/count"),
        "doubled": report.pointer("/doubled/count"),
    }))
}

fn short(text: &str) -> String {
    text.trim().chars().take(SUMMARY_MAX).collect()
}

impl Keyed {
    fn names_a_file(&self) -> bool {
        self.admin_key_file.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DrillKind;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_words_of_a_drill_are_read_before_they_are_due() {
        let options =
            options_of(&words("failover --hold 10s --rate 5"), &Place::default()).unwrap();
        assert_eq!((options.kind, options.hold), (DrillKind::Failover, Duration::from_secs(10)));
        for (text, wanted) in [
            ("list", "`list` is no drill"),
            ("heal", "`heal` is no drill"),
            ("serve", "`serve` is no drill"),
            ("failover --local", "cannot be scheduled"),
            ("failover --dry-run", "cannot be scheduled"),
            ("failover --html /etc/motd", "cannot be scheduled"),
            ("failover --admin-key-file /etc/shadow", "cannot be scheduled"),
            ("failover --url http://other:1", "unexpected argument"),
            ("earthquake", "unrecognized subcommand"),
            ("", "subcommand"),
        ] {
            let said = options_of(&words(text), &Place::default()).unwrap_err();
            assert!(said.contains(wanted), "{text}: {said}");
        }
    }

    /// An orchestrator was made before its schedule was refused.
    #[test]
    fn what_is_no_schedule_or_name_is_refused_before_anything_is_made() {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: ScheduleArgs,
        }
        let read = |text: &[&str]| {
            let line = ["schedule"].iter().chain(text).chain(&["--", "failover"]);
            Line::try_parse_from(line).map(|line| line.args)
        };
        assert!(read(&["", "--every", "60"]).is_err(), "a drill without a name");
        let check = |text: &[&str]| read(text).unwrap().cadence.check();
        assert!(check(&["a", "--cron", "0 3 * * 0", "--timezone", "Europe/Berlin"]).is_ok());
        assert!(check(&["a", "--every", "60"]).is_ok());
        for wrong in [
            &["a", "--cron", "0 3 * * 0", "--timezone", "Nowhere/X"][..],
            &["a", "--cron", "never"],
            &["a", "--every", "0"],
        ] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_program_is_quoted_for_the_shell() {
        let urls = ["http://a".to_owned(), "it's".to_owned()];
        let program = program(Path::new("/opt/my quorate"), &urls, &Place::default());
        let wanted = r"'/opt/my quorate' 'drill' 'conduct' '--url' 'http://a,it'\''s'";
        assert_eq!(program, wanted);
    }

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    /// A drill that was served on a machine of its own ended with `no dispatch reached the probe node`:
    /// its leader called its own loopback.
    #[test]
    fn the_probe_node_of_a_served_drill_is_reached_where_its_worker_is() {
        let place = |text: &str| {
            let words = ["serve"].into_iter().chain(text.split_whitespace());
            Line::try_parse_from(words).unwrap().args.probe_place()
        };
        let there = place("--listen 0.0.0.0:7001 --advertise drills:7001");
        let node = |text: &str| options_of(&words(text), &there).unwrap().node;
        let probe = node("failover").unwrap();
        assert_eq!(
            (probe.listen.to_string().as_str(), probe.advertise.as_deref()),
            ("0.0.0.0:0", Some("drills:"))
        );
        let own = node("failover --listen 0.0.0.0:7777 --advertise x:7777").unwrap();
        assert_eq!((own.listen.port(), own.advertise.as_deref()), (7777, Some("x:7777")));
        assert_eq!(node("failover --no-dispatch"), None);
        let told = program(Path::new("q"), &["u".to_owned()], &there);
        assert!(told.ends_with("'--listen' '0.0.0.0:0' '--advertise' 'drills:'"), "{told}");
        let here = place("");
        assert_eq!(
            (here.listen.unwrap().to_string().as_str(), here.advertise),
            ("127.0.0.1:0", None)
        );
        assert_eq!(place("--advertise [fe80::1]:5").advertise.as_deref(), Some("[fe80::1]:"));
    }
}
