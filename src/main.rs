//! The program: everything it does is in the library.

use std::process::ExitCode;

use quorate::cli::{self, Failure, Programs};

fn main() -> ExitCode {
    cli::run(Programs {
        server: |_| Err(Failure::failed("this build has no server")),
        dev: |_| Err(Failure::failed("this build has no dev cluster")),
        bench: |_, _, _| Err(Failure::failed("this build has no bench")),
    })
}
