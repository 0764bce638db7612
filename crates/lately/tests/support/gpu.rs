//! Whether tests of what is said without a GPU can see it.

/// Whether this machine has a GPU that the program can use.
pub(crate) fn has_gpu() -> bool {
    #[cfg(feature = "cuda")]
    if lately_cuda::Device::open(0).is_ok() {
        println!("skipped: this machine has a CUDA device, and what is said without one is not seen");
        return true;
    }
    false
}
