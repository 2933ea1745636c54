//! Compiles the public interface of agents, as anybody who writes one would.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../proto");
    let files = protox::compile(["../proto/orchestrator.proto"], ["../proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .compile_fds(files)?;
    Ok(())
}
