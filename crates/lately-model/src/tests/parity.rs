use std::path::PathBuf;

use crate::backend::{Backend, Cpu, CpuBf16, Scalar};
use crate::parity::run_on;
use crate::{Precision, ServingPrecision};

/// All reference cases, or none where they are not at hand.
fn files() -> Vec<PathBuf> {
    let near = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden");
    let folder = std::env::var_os("LATELY_GOLDEN").map_or_else(|| PathBuf::from(near), PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: no reference cases in {}; set LATELY_GOLDEN", folder.display());
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    assert!(!files.is_empty(), "{} holds no .safetensors", folder.display());
    files
}

fn holds<B: Backend<f32>>(files: &[PathBuf], precision: Precision) {
    let mut failed = 0;
    for path in files {
        let serving = match precision {
            Precision::F32 => ServingPrecision::F32,
            Precision::Bf16 => ServingPrecision::Bf16,
        };
        let report = run_on::<B>(path, serving).unwrap();
        println!("{}: {report:?}", path.file_name().unwrap().display());
        failed += usize::from(!report.holds(precision));
    }
    assert_eq!(failed, 0, "reports above");
}

#[test]
fn every_reference_case_holds() {
    holds::<Cpu>(&files(), Precision::F32);
}

#[test]
fn the_reference_operations_hold_too() {
    let short = files().into_iter().filter(|p| p.ends_with("short.safetensors"));
    holds::<Scalar>(&short.collect::<Vec<_>>(), Precision::F32);
}

#[test]
fn every_reference_case_holds_in_bf16() {
    holds::<CpuBf16>(&files(), Precision::Bf16);
}
