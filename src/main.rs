//! The program: everything it does is in the library.

use std::process::ExitCode;

/// A member makes and drops many small rows; glibc's allocator took a quarter of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    quorate::cli::run()
}
