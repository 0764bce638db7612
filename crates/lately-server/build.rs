//! Turns `proto/` into Rust, without protoc: the server's side for the crate, the client's side for its tests.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

const FILES: [&str; 3] =
    ["lately/v1/lately.proto", "grpc/health/v1/health.proto", "inference/inference.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let client = out.join("client");
    fs::create_dir_all(&client)?;
    let mut files = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure().build_client(false).compile_fds(files.clone())?;
    tonic_prost_build::configure().build_server(false).out_dir(client).compile_fds(files.clone())?;
    // For server reflection, which needs no comments.
    for file in &mut files.file {
        file.source_code_info = None;
    }
    fs::write(out.join("descriptors.bin"), files.encode_to_vec())?;
    Ok(())
}
