//! Compiles all kernels for the architectures that are served, and prints a line for each: `cargo xtask kernels` calls it,
//! which finds libnvrtc. No card is needed.

use std::process::ExitCode;
use std::time::Instant;

use lately_cuda::{CudaError, kernels};

/// The oldest that is served, Ampere, and Hopper with what only it has.
const ARCHITECTURES: [&str; 2] = ["sm_80", "sm_90a"];

fn main() -> ExitCode {
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), CudaError> {
    println!("{:<40} {:<8} {:>9} {:>9}", "kernels", "arch", "bytes", "seconds");
    for source in kernels::all() {
        for arch in ARCHITECTURES {
            let begin = Instant::now();
            let code = kernels::compile(&source, arch)?;
            let took = begin.elapsed().as_secs_f64();
            println!("{:<40} {arch:<8} {:>9} {took:>9.2}", source.name, code.len());
        }
    }
    Ok(())
}
