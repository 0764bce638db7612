//! Small file operations that a crash cannot leave half done.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use super::RegistryError;

/// Beginning of the names of unfinished files.
const TEMPORARY: &str = ".unfinished-";

pub(super) fn at(path: &Path) -> impl Fn(std::io::Error) -> RegistryError {
    move |source| RegistryError::Io { path: path.to_owned(), source }
}

/// Writes a file in one step: temporary name, fsync, rename, fsync of the directory.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), RegistryError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(dir).map_err(at(dir))?;
    file.write_all(bytes).map_err(at(path))?;
    file.as_file().sync_all().map_err(at(path))?;
    file.persist(path).map_err(|e| at(path)(e.error))?;
    sync_dir(dir)
}

pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), RegistryError> {
    let reason = |e: serde_json::Error| RegistryError::File { path: path.to_owned(), reason: e.to_string() };
    write(path, &serde_json::to_vec_pretty(value).map_err(reason)?)
}

/// `None` where there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, RegistryError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(at(path)(e)),
    }
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RegistryError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let reason = |e: serde_json::Error| RegistryError::File { path: path.to_owned(), reason: e.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(reason)
}

/// Removes a file, if it is there, for good.
pub(super) fn remove(path: &Path) -> Result<(), RegistryError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(at(path)(e)),
        _ => sync_dir(path.parent().unwrap_or(Path::new("."))),
    }
}

/// Names of the files in a directory; a name that is not UTF-8 is none of ours.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, RegistryError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at(dir))? {
        names.extend(entry.map_err(at(dir))?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Removes what a crash left unfinished; call it under the registry's lock, when nobody writes.
pub(super) fn remove_temporary(dir: &Path) -> Result<(), RegistryError> {
    for name in names(dir)?.iter().filter(|n| n.starts_with(TEMPORARY)) {
        remove(&dir.join(name))?;
    }
    Ok(())
}

/// Makes renames and removals in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), RegistryError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(at(dir))
}
