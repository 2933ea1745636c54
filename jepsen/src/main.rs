//! Black-box fault testing of a Quorate cluster.

fn main() {}
