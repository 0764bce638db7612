//! What a finished run leaves in `DATA/ablate`, so that an interrupted suite goes on where it stopped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lately_model::ModelConfig;
use lately_train::ablation::Measured;
use lately_train::{EvalOptions, TrainConfig, Zone};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Version of the file's form, and of what the metrics in it mean.
const FORMAT: u32 = 2;

/// One trained and measured model.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    format: u32,
    /// Hash of the program that made it.
    pub program: String,
    /// Shape of the model.
    pub model: ModelConfig,
    /// Settings, with the seed.
    pub train: TrainConfig,
    /// Seconds of training.
    pub seconds: f64,
    /// The numbers.
    pub measured: Vec<Measured>,
}

impl Kept {
    /// A result of this program.
    pub fn new(model: ModelConfig, train: TrainConfig, seconds: f64, measured: Vec<Measured>) -> Self {
        Self { format: FORMAT, program: program(), model, train, seconds, measured }
    }
}

/// The folder of results of a data directory.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    /// Of rows and of how they are evaluated.
    data: String,
}

impl Folder {
    /// Makes the folder. `rows`: fingerprints of the rows that are trained on and of those that are evaluated, in lists
    /// that `zone` may cut.
    pub fn open(data: &Path, rows: (u128, u128), zone: &Zone, options: &EvalOptions) -> Result<Self> {
        let path = data.join("ablate");
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let data = format!("{FORMAT} {rows:x?} {zone:?} {} {}", options.resamples, options.seed);
        Ok(Self { path, data })
    }

    /// The file of a run: all that decides its result is in the name. Threads do not.
    fn file(&self, model: &ModelConfig, train: &TrainConfig, extension: &str) -> Result<PathBuf> {
        let train = TrainConfig { threads: 0, save_seconds: 0, ..train.clone() };
        let what = serde_json::to_string(&(&self.data, model, &train))?;
        Ok(self.path.join(format!("{:032x}.{extension}", xxh3_128(what.as_bytes()))))
    }

    /// The state file of an unfinished training.
    pub fn state(&self, model: &ModelConfig, train: &TrainConfig) -> Result<PathBuf> {
        self.file(model, train, "state")
    }

    /// What an earlier run left; a file that cannot be read is as good as none, with a warning.
    pub fn find(&self, model: &ModelConfig, train: &TrainConfig) -> Result<Option<Kept>> {
        let path = self.file(model, train, "json")?;
        if !path.exists() {
            return Ok(None);
        }
        let read = || -> Result<Kept> { Ok(serde_json::from_slice(&fs::read(&path)?)?) };
        Ok(read()
            .inspect_err(|error| {
                eprintln!("warning: {} is damaged, training again: {error:#}", path.display())
            })
            .ok())
    }

    /// Keeps a result: written beside its place and renamed, so that a kill leaves none or a whole one.
    pub fn keep(&self, kept: &Kept) -> Result<()> {
        let path = self.file(&kept.model, &kept.train, "json")?;
        let beside = path.with_extension("partial");
        let cannot = || format!("cannot write {}", path.display());
        fs::write(&beside, serde_json::to_vec(kept)?).with_context(cannot)?;
        fs::rename(&beside, &path).with_context(cannot)
    }
}

/// A hash of the running program, to tell results of another build apart.
pub fn program() -> String {
    let read = std::env::current_exe().and_then(fs::read);
    read.map_or_else(|_| "unknown".to_owned(), |bytes| format!("{:016x}", xxh3_64(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_found_again_by_all_that_decided_it() {
        let dir = tempfile::tempdir().unwrap();
        let options = EvalOptions::default();
        let utc = Zone::utc();
        let folder = Folder::open(dir.path(), (1, 2), &utc, &options).unwrap();
        let (model, train) = (ModelConfig::default(), TrainConfig::default());
        assert!(folder.find(&model, &train).unwrap().is_none());
        folder.keep(&Kept::new(model.clone(), train.clone(), 1.5, Vec::new())).unwrap();
        let found = folder.find(&model, &TrainConfig { threads: 7, ..train.clone() }).unwrap().unwrap();
        assert_eq!((found.seconds, found.program), (1.5, program()));
        assert!(folder.find(&model, &TrainConfig { seed: 9, ..train.clone() }).unwrap().is_none());
        assert!(folder.find(&ModelConfig { layers: 1, ..model.clone() }, &train).unwrap().is_none());
        for other in [
            Folder::open(dir.path(), (1, 3), &utc, &options),
            Folder::open(dir.path(), (1, 2), &Zone::named("Asia/Shanghai").unwrap(), &options),
            Folder::open(dir.path(), (1, 2), &utc, &EvalOptions { resamples: 7, ..options.clone() }),
        ] {
            assert!(other.unwrap().find(&model, &train).unwrap().is_none());
        }
        let path = folder.file(&model, &train, "json").unwrap();
        fs::write(path, "{").unwrap();
        assert!(folder.find(&model, &train).unwrap().is_none(), "damaged");
    }
}
