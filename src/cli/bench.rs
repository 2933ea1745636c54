//! `quorate bench`: what can be said to it.

/// Measures a cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// What is measured
    #[arg(value_enum, default_value_t = Scenario::Submit)]
    pub scenario: Scenario,
    /// Clients that wait for each answer before they ask again; may be a list
    #[arg(long, value_delimiter = ',', default_value = "64")]
    pub clients: Vec<u32>,
    /// Requests per second to start however slow the answers are (open loop)
    #[arg(long)]
    pub rate: Option<u32>,
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 10)]
    pub secs: u64,
    /// How long to run before measuring, in seconds
    #[arg(long, default_value_t = 2)]
    pub warmup: u64,
    /// Bytes of input per task
    #[arg(long, default_value_t = 256)]
    pub size: usize,
    /// Tasks per request (batch scenario)
    #[arg(long, default_value_t = 1000)]
    pub batch: usize,
    /// Nodes the end-to-end scenario brings along
    #[arg(long, default_value_t = 4)]
    pub nodes: u32,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Durable single writes: one task per request
    Submit,
    /// Durable writes of many tasks per request
    Batch,
    /// Linearizable reads of one task
    Read,
    /// Submit to recorded result, over nodes that answer at once
    EndToEnd,
    /// Leader killed again and again: time to the next acknowledged write
    Failover,
}
