//! The kernels' sources through NVRTC, where it is, and the refusals where it is not.

use crate::kernels::{Source, all, compile};
use crate::{CudaError, Device};

#[test]
fn nvrtc_compiles_every_source_for_every_architecture() {
    let sources = all();
    let names: Vec<_> = sources.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["default", "paper", "no encoder", "training in bf16", "training in f32"]);
    for source in &sources {
        for arch in ["sm_80", "sm_90a"] {
            match compile(source, arch) {
                Ok(code) => assert_eq!(code[..4], *b"\x7fELF", "machine code"),
                Err(CudaError::Missing { library, .. }) => {
                    eprintln!(
                        "SKIPPED: no {library} on this machine, the kernels were not compiled for {arch}"
                    );
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_source_that_does_not_compile_says_why() {
    let source = Source {
        name: "wrong".into(),
        text: "__global__ void f() { no_such_name; }".into(),
        kernels: Vec::new(),
    };
    match compile(&source, "sm_80") {
        Err(CudaError::Missing { library, .. }) => {
            eprintln!("SKIPPED: no {library} on this machine");
        }
        Err(CudaError::Compile { log, source_name, .. }) => {
            assert!(log.contains("no_such_name") && source_name == "wrong", "{log}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_machine_without_a_card_says_what_to_install() {
    match Device::open(9_999) {
        Err(CudaError::Missing { library, install }) => {
            let message = CudaError::Missing { library, install }.to_string();
            assert!(message.contains("install") && message.contains(library), "{message}");
        }
        // A driver without a card, or fewer than that.
        Err(CudaError::NoDevice { ordinal, .. }) => assert_eq!(ordinal, 9_999),
        Err(CudaError::Driver { .. } | CudaError::TooOld { .. }) => {}
        other => panic!("{other:?}"),
    }
}
