//! The load generator against small servers of its own: what it counts, and when it stops.
