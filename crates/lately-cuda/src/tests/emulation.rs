//! The emulation sees what it is there to see.

use std::sync::Arc;

use crate::CudaError;
use crate::driver::emulation::{Emulation, Module, compiler};
use crate::driver::{Argument, Driver, Kernel, Launch, Shape};
use crate::kernels::Source;

/// Names of kernels that take one pointer.
const TEXT: &str = r#"
extern "C" __global__ void place_features(float *out) {
    SHARED(shared);
    float *s = (float *)shared;
    s[threadIdx.x] = (float)threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = s[(threadIdx.x + 32) % 64];
}
extern "C" __global__ void dense_linear(float *out) {
    SHARED(shared);
    float *s = (float *)shared;
    s[threadIdx.x] = (float)threadIdx.x;
    out[threadIdx.x] = s[(threadIdx.x + 32) % 64];
}
extern "C" __global__ void dense_relu(float *out) {
    if (threadIdx.x < 40) __syncthreads();
}
extern "C" __global__ void dense_gate(float *out) {
    float v = 1.0f;
    if (threadIdx.x % 2 == 0) v = __shfl_xor_sync(0xffffffffu, v, 1);
    else v += __shfl_xor_sync(0xffffffffu, v, 1);

    out[threadIdx.x] = v;
}
extern "C" __global__ void dense_logits(float *out) {
    SHARED(shared);
    ((float *)shared)[threadIdx.x + 4] = 1.0f;
    out[threadIdx.x + 4] = 1.0f;
}
"#;

fn run(
    driver: &Emulation,
    module: &Module,
    kernel: Kernel,
    shared: u32,
    room: usize,
) -> Result<Vec<f32>, CudaError> {
    let launch = Launch { kernel, grid: [1, 1], threads: 64, shared, arguments: vec![Argument::Output] };
    let mut lane = driver.lane(1, room)?;
    let mut out = vec![0.0; 64];
    driver.run(module, &mut lane, Shape { rows: 1, requests: 1, tiles: 1 }, &[launch], 0, &mut out)?;
    Ok(out)
}

#[test]
fn wrong_kernels_are_found_out() {
    if compiler().is_none() {
        return;
    }
    let driver = Emulation::default();
    let source = Source {
        name: "wrong".into(),
        text: TEXT.into(),
        kernels: vec![
            Kernel::PlaceFeatures,
            Kernel::DenseLinear,
            Kernel::DenseRelu,
            Kernel::DenseGate,
            Kernel::DenseLogits,
        ],
    };
    let module: Arc<Module> = driver.load(&source, &[]).unwrap();
    let run = |kernel, shared, room| run(&driver, &module, kernel, shared, room);
    let failure = |kernel, shared, room| run(kernel, shared, room).unwrap_err().to_string();

    let want: Vec<f32> = (0..64).map(|i| ((i + 32) % 64) as f32).collect();
    assert_eq!(run(Kernel::PlaceFeatures, 256, 64).unwrap(), want);
    // Without the barrier one warp reads what is not yet there: NaN, and in the other order the other one.
    let missing = |x: &[f32]| x.iter().map(|x| x.is_nan()).collect::<Vec<_>>();
    let forwards = missing(&run(Kernel::DenseLinear, 256, 64).unwrap());
    driver.turn_around(true);
    let backwards = missing(&run(Kernel::DenseLinear, 256, 64).unwrap());
    driver.turn_around(false);
    assert!(forwards[..32].iter().all(|x| *x) && backwards[32..].iter().all(|x| *x));
    assert_ne!(forwards, backwards);

    let message = failure(Kernel::DenseRelu, 0, 64);
    assert!(message.contains("40 of 64 threads wait for others that do not come"), "{message}");
    let message = failure(Kernel::DenseGate, 0, 64);
    assert!(message.contains("a lane is at shfl.xor"), "{message}");
    let message = failure(Kernel::DenseLogits, 256, 68);
    assert!(message.contains("beyond its shared memory"), "{message}");
    let message = failure(Kernel::DenseLogits, 512, 64);
    assert!(message.contains("wrote beyond a memory"), "{message}");
}
