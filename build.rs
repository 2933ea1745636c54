//! Compiles `proto/` to Rust, with a compiler that is itself Rust: no `protoc` has to be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/orchestrator.proto"], ["proto"])?;
    // Ordered maps, so that one message always has the same bytes.
    tonic_prost_build::configure()
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .compile_fds(files)?;
    Ok(())
}
