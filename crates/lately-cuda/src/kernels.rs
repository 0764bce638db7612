//! The kernels' sources, and their compiler.
//!
//! They are compiled when a model is loaded, for its sizes and for the card, by NVRTC, and need no header of CUDA:
//! libnvrtc is all that a machine must have beside the driver.

#![allow(unsafe_code)] // calls of NVRTC

use std::ffi::{CStr, CString, c_char};

use cudarc::nvrtc::{result, sys};
use lately_model::device::{
    AffinityParts, EncoderParts, LayerParts, LinearParts, ServingParts, TransformerParts,
};
use lately_model::training::{EncoderIds, TrainingPlan};

use crate::CudaError;
use crate::driver::Kernel;
use crate::geometry::Geometry;

/// Files of the kernels, in the order in which they are read.
const FILES: [&str; 7] = [
    include_str!("kernels/prelude.cu"),
    include_str!("kernels/call.cu"),
    include_str!("kernels/request.cu"),
    include_str!("kernels/encoder.cu"),
    include_str!("kernels/affinity.cu"),
    include_str!("kernels/items.cu"),
    include_str!("kernels/top.cu"),
];

/// Those of training.
const TRAINING_FILES: [&str; 7] = [
    include_str!("kernels/prelude.cu"),
    include_str!("kernels/train/real.cu"),
    include_str!("kernels/train/product.cu"),
    include_str!("kernels/train/attention.cu"),
    include_str!("kernels/train/norm.cu"),
    include_str!("kernels/train/rows.cu"),
    include_str!("kernels/train/step.cu"),
];

/// CUDA C++ of all kernels for one geometry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// For messages.
    pub name: String,
    /// Complete: it includes no header.
    pub text: String,
    /// What it defines.
    pub(crate) kernels: Vec<Kernel>,
}

impl Source {
    pub(crate) fn of(geometry: &Geometry) -> Self {
        let constants = geometry.constants();
        let width = constants.iter().find(|(name, _)| *name == "WIDTH").map_or("0", |(_, value)| value);
        let name = format!("encoder of width {width} over {} tokens", geometry.most_tokens());
        let defines = constants.iter().map(|(name, value)| format!("#define {name} {value}\n"));
        let encoder = [Kernel::RequestPart, Kernel::Encode];
        let affinity = geometry.columns.affinity.map(|_| Kernel::Affinity);
        let top = [
            Kernel::PlaceFeatures,
            Kernel::RequestSums,
            Kernel::DenseLinear,
            Kernel::DenseRelu,
            Kernel::DenseGate,
            Kernel::DenseLogits,
        ];
        let encoder = encoder.into_iter().filter(|_| geometry.encoder.is_some());
        let kernels = encoder.chain(affinity).chain(top).collect();
        Self { name, text: defines.chain(FILES.map(str::to_owned)).collect(), kernels }
    }

    /// Of training; `split`: in f32.
    pub(crate) fn of_training(plan: &TrainingPlan, split: bool) -> Self {
        let mut constants = vec![("SPLIT", usize::from(split))];
        let mut kernels = vec![
            Kernel::LinearPlain,
            Kernel::LinearRelu,
            Kernel::LinearGate,
            Kernel::LinearLogits,
            Kernel::InputGradient,
            Kernel::InputGradientAdd,
            Kernel::InputGradientRelu,
            Kernel::WeightGradient,
            Kernel::Place,
            Kernel::Embed,
            Kernel::Expand,
            Kernel::NumberTokens,
            Kernel::CollectRows,
            Kernel::CollectTokens,
            Kernel::CollectTable,
            Kernel::CopyColumns,
            Kernel::Spread,
            Kernel::GateBackward,
            Kernel::Reduce,
            Kernel::Squares,
            Kernel::Adam,
            Kernel::ClearWords,
        ];
        if let Some(e) = &plan.encoder {
            constants.extend([
                ("WIDTH", e.width),
                ("HEADS", e.heads),
                ("LENGTH", e.length.max(1)),
                ("FIRST_K", e.first_k),
                ("POOL", usize::from(e.pool.is_some())),
            ]);
            kernels.extend([
                Kernel::Attention,
                Kernel::AttentionBackward,
                Kernel::AddNorm,
                Kernel::AddNormBackward,
                Kernel::Outputs,
                Kernel::ClearEmpty,
                Kernel::OutputsBackward,
            ]);
        } else {
            constants.push(("WIDTH", 0));
        }
        let name = format!("training in {}", if split { "f32" } else { "bf16" });
        let defines = constants.iter().map(|(name, value)| format!("#define {name} {value}\n"));
        Self { name, text: defines.chain(TRAINING_FILES.map(str::to_owned)).collect(), kernels }
    }
}

/// The kernels of the default geometry and of the paper's, with 400 columns of features, those of the former without user
/// sequence, and those of training the paper's.
pub fn all() -> Vec<Source> {
    let named = |parts: &ServingParts, name: &str| {
        let (geometry, _) = Geometry::of(parts).ok()?;
        Some(Source { name: name.into(), ..Source::of(&geometry) })
    };
    let (default, paper) = (nominal(1), nominal(10));
    let without = ServingParts {
        inputs: default.inputs - default.request.start,
        request: 0..default.request.len(),
        affinity: None,
        encoder: EncoderParts::None,
        project: Some(linear(64, default.inputs - default.request.start)),
        cross: Vec::new(),
        mlp: Vec::new(),
        head: linear(3, 64),
        ..default.clone()
    };
    let serving = [named(&default, "default"), named(&paper, "paper"), named(&without, "no encoder")];
    let training = |split| Source::of_training(&nominal_training(), split);
    serving.into_iter().flatten().chain([training(false), training(true)]).collect()
}

/// A linear map whose weights are 0.
fn linear(outputs: usize, inputs: usize) -> LinearParts {
    LinearParts { weight: vec![0.0; outputs * inputs], bias: vec![0.0; outputs] }
}

/// The encoder of the paper's geometry; the kernels of the top are the same for all sizes.
fn nominal_training() -> TrainingPlan {
    let encoder = EncoderIds {
        token: 64,
        width: 96,
        action: 32,
        item: 32,
        heads: 1,
        ffn: 32,
        length: 100,
        tables: Vec::new(),
        layers: Vec::new(),
        pool: Some(0),
        first_k: 10,
        output: 96 * 11,
    };
    TrainingPlan {
        parameters: Vec::new(),
        encoder: Some(encoder),
        inputs: 96 * 11 + 400,
        tables: Vec::new(),
        project: None,
        cross: Vec::new(),
        mlp: Vec::new(),
        head: 0,
        rate: None,
        heads: 3,
        dropout: 0.1,
    }
}

/// A model of two layers of width 96 whose weights are 0.
fn nominal(first_k: usize) -> ServingParts {
    let (token, candidate, ffn) = (64, 32, 32);
    let width = token + candidate;
    let zeros = || vec![0.0; width];
    let layer = LayerParts {
        attention: linear(2 * width, width),
        out_bias: zeros(),
        norm1: [zeros(), zeros()],
        linear1: linear(ffn, width),
        linear2: linear(width, ffn),
        norm2: [zeros(), zeros()],
    };
    let output = width * (first_k + 1);
    let affinity = AffinityParts { actions: 10, scale: 1.0 };
    let (first, inputs) = (output + affinity.width(), output + 400);
    let encoder = TransformerParts {
        token,
        candidate,
        first_k,
        output,
        layers: vec![layer.clone(), layer],
        pool: Some(linear(width, width)),
    };
    ServingParts {
        inputs,
        request: first..first + 60,
        affinity: Some(affinity),
        length: 100,
        encoder: EncoderParts::Transformer(encoder),
        project: None,
        cross: vec![linear(inputs, inputs); 2],
        mlp: vec![linear(512, inputs), linear(256, 512)],
        head: linear(3, 256),
    }
}

/// Checks for NVRTC before any of its functions, as those panic where it is not there.
pub(crate) fn present() -> Result<(), CudaError> {
    // SAFETY: the loader runs NVIDIA's library's own initialisers; nothing else happens.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    Err(CudaError::Missing {
        library: "libnvrtc.so",
        install: "install the CUDA runtime compiler (package cuda-nvrtc of NVIDIA's repository, version 12 or 13), or use the CPU",
    })
}

/// Machine code of a source for an architecture, such as `sm_80` or `sm_90a`. No card is needed, only libnvrtc.
///
/// # Errors
/// Where libnvrtc is missing, or refuses the source or the architecture.
pub fn compile(source: &Source, arch: &str) -> Result<Vec<u8>, CudaError> {
    present()?;
    let failed =
        |log: String| CudaError::Compile { source_name: source.name.clone(), arch: arch.to_owned(), log };
    let text = CString::new(source.text.as_str()).map_err(|e| failed(e.to_string()))?;
    let program =
        Program(result::create_program(&text, Some(c"lately.cu")).map_err(|e| failed(e.to_string()))?);
    let options = [format!("--gpu-architecture={arch}"), "--std=c++17".to_owned()];
    // SAFETY: the program was created above and is destroyed after this function's last use.
    match unsafe { result::compile_program(program.0, &options) } {
        Ok(()) => program.machine_code().map_err(|e| failed(e.to_string())),
        Err(e) => Err(failed(format!("{e}: {}", program.log()))),
    }
}

/// A program of NVRTC, destroyed with it.
struct Program(sys::nvrtcProgram);

impl Program {
    fn log(&self) -> String {
        // SAFETY: the program lives as long as `self`.
        match unsafe { result::get_program_log(self.0) } {
            Ok(log) => text(&log),
            Err(e) => format!("without a log: {e}"),
        }
    }

    fn machine_code(&self) -> Result<Vec<u8>, result::NvrtcError> {
        let mut size = 0;
        // SAFETY: the program lives as long as `self`; the size is written to a number of ours.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut size) }.result()?;
        let mut code = vec![0u8; size];
        // SAFETY: as above; NVRTC writes exactly the size that it gave.
        unsafe { sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast::<c_char>()) }.result()?;
        Ok(code)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created by NVRTC and not used again. What it says of a program that it made itself has no use here.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn text(log: &[c_char]) -> String {
    let bytes: Vec<u8> = log.iter().map(|c| c.cast_unsigned()).collect();
    let text = CStr::from_bytes_until_nul(&bytes).map(CStr::to_string_lossy);
    text.map_or_else(|_| String::from_utf8_lossy(&bytes).into_owned(), std::borrow::Cow::into_owned)
}
