//! The only source of wall time and randomness.
//!
//! Production reads the system; a simulation fixes both, per thread, so that one seed gives one
//! trace. Timers are tokio's, which a simulation pauses; they need no port of their own.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::model::{RequestId, TimeMs};

/// Simulated runs start here, so that traces do not depend on the day they are made.
const SIMULATED_EPOCH_MS: TimeMs = 1_700_000_000_000;

thread_local! {
    static SIMULATION: Cell<Option<Simulation>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Simulation {
    seed: u64,
    elapsed: Elapsed,
}

#[derive(Clone, Copy)]
enum Elapsed {
    Since(tokio::time::Instant),
    Told(fn() -> Duration),
}

impl Elapsed {
    fn now(self) -> Duration {
        match self {
            Self::Since(started) => started.elapsed(),
            Self::Told(elapsed) => elapsed(),
        }
    }
}

/// Makes this thread's clock and randomness a function of `seed` and of tokio's (paused) time.
/// For simulations only; it cannot be undone.
pub fn simulate(seed: u64) {
    let elapsed = Elapsed::Since(tokio::time::Instant::now());
    SIMULATION.with(|cell| cell.set(Some(Simulation { seed, elapsed })));
}

/// As [`simulate`], for a simulation of several runtimes, whose tokio clocks do not start
/// together: `elapsed` tells the time since its beginning.
pub fn simulate_with(seed: u64, elapsed: fn() -> Duration) {
    let elapsed = Elapsed::Told(elapsed);
    SIMULATION.with(|cell| cell.set(Some(Simulation { seed, elapsed })));
}

/// Whether this thread belongs to a simulation, which must not depend on what other threads do.
#[must_use]
pub fn is_simulated() -> bool {
    SIMULATION.with(Cell::get).is_some()
}

/// Milliseconds since the Unix epoch. May step back or jump: whoever needs order must not use it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now_ms() -> TimeMs {
    if let Some(simulation) = SIMULATION.with(Cell::get) {
        let elapsed = simulation.elapsed.now().as_millis();
        return SIMULATED_EPOCH_MS + u64::try_from(elapsed).unwrap_or(u64::MAX / 2);
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// 64 random bits: from the operating system, or the next of the simulation's seed.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that draws randomness")]
pub fn random() -> u64 {
    if let Some(mut simulation) = SIMULATION.with(Cell::get) {
        let drawn = split_mix(simulation.seed);
        simulation.seed = simulation.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        SIMULATION.with(|cell| cell.set(Some(simulation)));
        return drawn;
    }
    rand::random()
}

/// A generator for the many draws of one place, seeded by [`random`].
#[must_use]
pub fn rng() -> SmallRng {
    SmallRng::seed_from_u64(random())
}

/// A fresh id for a request that came without one.
#[must_use]
pub fn mint_request_id() -> RequestId {
    RequestId(u128::from(random()) << 64 | u128::from(random()))
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (OOPSLA 2014).
fn split_mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
