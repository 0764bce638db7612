//! The state of a training run on disk: what a killed run needs to go on to the very same bytes.
//!
//! One safetensors file: for each parameter `w.`, `m.` and `v.` (weight and Adam's moments), and `loss` with the
//! loss of every step done. It is written beside its place, synced and renamed, so a kill leaves the former or the new
//! one, never a mixture.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use lately_model::{Model, Normaliser};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, SafeTensors, View};

/// Version of the file's layout.
const FORMAT: &str = "lately-training-state-1";

/// Why a state is refused or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a state.
    #[error("{} is not a training state: {reason}; remove it to begin anew", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file belongs to another run.
    #[error(
        "{} belongs to a run with other rows or settings: run with those to finish it, or remove it to begin anew",
        .0.display()
    )]
    OtherRun(PathBuf),
}

/// A run between two steps.
pub(crate) struct Run {
    pub(crate) model: Model,
    /// For each parameter Adam's first and second moments.
    pub(crate) moments: Vec<(Vec<f32>, Vec<f32>)>,
    /// Loss of every step done.
    pub(crate) loss: Vec<f64>,
    /// Step of the state on disk, where there is one.
    pub(crate) saved: Option<u64>,
    fingerprint: u128,
}

/// Numbers to be written. Their bytes are made when their turn comes, so that a save takes memory for one tensor.
enum Numbers<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

struct Out<'a> {
    shape: [usize; 1],
    numbers: Numbers<'a>,
}

impl View for Out<'_> {
    fn dtype(&self) -> Dtype {
        match self.numbers {
            Numbers::F32(_) => Dtype::F32,
            Numbers::F64(_) => Dtype::F64,
        }
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        match self.numbers {
            Numbers::F32(list) => list.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Numbers::F64(list) => list.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }
    fn data_len(&self) -> usize {
        match self.numbers {
            Numbers::F32(list) => size_of_val(list),
            Numbers::F64(list) => size_of_val(list),
        }
    }
}

impl Run {
    pub(crate) fn new(model: Model, fingerprint: u128) -> Self {
        let moments = model.parameters().iter().map(|p| (vec![0.0; p.data.len()], vec![0.0; p.data.len()]));
        Self { moments: moments.collect(), model, loss: Vec::new(), saved: None, fingerprint }
    }

    /// Steps done.
    pub(crate) fn step(&self) -> u64 {
        self.loss.len() as u64
    }

    pub(crate) fn save(&mut self, path: &Path) -> Result<(), StateError> {
        let damaged = |reason: String| StateError::Damaged { path: path.to_owned(), reason };
        let mut tensors = Vec::with_capacity(3 * self.moments.len() + 1);
        for (parameter, (m, v)) in self.model.parameters().iter().zip(&self.moments) {
            for (prefix, data) in [("w", &parameter.data), ("m", m), ("v", v)] {
                let out = Out { shape: [data.len()], numbers: Numbers::F32(data) };
                tensors.push((format!("{prefix}.{}", parameter.name), out));
            }
        }
        let loss = Out { shape: [self.loss.len()], numbers: Numbers::F64(&self.loss) };
        tensors.push(("loss".to_owned(), loss));
        let normaliser =
            serde_json::to_string(self.model.normaliser()).map_err(|e| damaged(e.to_string()))?;
        let metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("fingerprint".to_owned(), format!("{:032x}", self.fingerprint)),
            ("normaliser".to_owned(), normaliser),
        ]);
        let beside = path.with_extension("partial");
        let io = |source| StateError::Io { path: path.to_owned(), source };
        safetensors::serialize_to_file(tensors, Some(metadata), &beside).map_err(|e| match e {
            SafeTensorError::IoError(source) => io(source),
            other => damaged(other.to_string()),
        })?;
        replace(&beside, path).map_err(io)?;
        self.saved = Some(self.step());
        Ok(())
    }

    /// Reads a state into `model`, a new one of the same configuration.
    pub(crate) fn load(path: &Path, fingerprint: u128, mut model: Model) -> Result<Self, StateError> {
        let bytes = std::fs::read(path).map_err(|source| StateError::Io { path: path.to_owned(), source })?;
        let damaged = |reason: String| StateError::Damaged { path: path.to_owned(), reason };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(e.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let entry = |key: &str| {
            metadata.get(key).map(String::as_str).ok_or_else(|| damaged(format!("it has no {key}")))
        };
        if entry("format")? != FORMAT {
            return Err(damaged(format!("its format is `{}`, not `{FORMAT}`", entry("format")?)));
        }
        if entry("fingerprint")? != format!("{fingerprint:032x}") {
            return Err(StateError::OtherRun(path.to_owned()));
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
        let read = |name: String, dtype: Dtype, length: Option<usize>| -> Result<&[u8], StateError> {
            let tensor = tensors.tensor(&name).map_err(|e| damaged(e.to_string()))?;
            if tensor.dtype() != dtype || length.is_some_and(|n| tensor.shape() != [n]) {
                return Err(damaged(format!("`{name}` has another type or length")));
            }
            Ok(tensor.data())
        };
        let normaliser: Normaliser =
            serde_json::from_str(entry("normaliser")?).map_err(|e| damaged(e.to_string()))?;
        model.set_normaliser(normaliser).map_err(|e| damaged(e.to_string()))?;
        let mut moments = Vec::new();
        for (name, data) in model.parameters_mut() {
            let part = |prefix: &str| -> Result<Vec<f32>, StateError> {
                let (numbers, _) =
                    read(format!("{prefix}.{name}"), Dtype::F32, Some(data.len()))?.as_chunks();
                Ok(numbers.iter().map(|b| f32::from_le_bytes(*b)).collect())
            };
            let (w, m, v) = (part("w")?, part("m")?, part("v")?);
            data.copy_from_slice(&w);
            moments.push((m, v));
        }
        let (losses, _) = read("loss".to_owned(), Dtype::F64, None)?.as_chunks();
        let loss: Vec<f64> = losses.iter().map(|b| f64::from_le_bytes(*b)).collect();
        let saved = Some(loss.len() as u64);
        Ok(Self { model, moments, loss, saved, fingerprint })
    }
}

/// Puts `beside` at the place of `path` when it is safe on the disk.
fn replace(beside: &Path, path: &Path) -> std::io::Result<()> {
    File::open(beside)?.sync_all()?;
    std::fs::rename(beside, path)?;
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}
