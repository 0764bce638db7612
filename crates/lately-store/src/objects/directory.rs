//! Objects as files of a local directory.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::{ObjectError, ObjectInfo, Objects, check_name};

/// Beginning of the names of unfinished files; no object's part begins with a dot.
const TEMPORARY: &str = ".unfinished-";
/// Held while a name is compared and written; several processes may share the directory.
const LOCK: &str = ".lock";

/// Objects as files: each is written under a temporary name, synced, renamed, and its directory synced.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Opens a directory, which is made where it is missing. What a crash left unfinished is removed.
    ///
    /// # Errors
    /// [`ObjectError::Io`] where it cannot be made or read.
    pub fn open(root: &Path) -> Result<Self, ObjectError> {
        fs::create_dir_all(root).map_err(at(root))?;
        let directory = Self { root: root.to_owned() };
        directory.sweep()?;
        Ok(directory)
    }

    fn path(&self, name: &str) -> Result<PathBuf, ObjectError> {
        check_name(name)?;
        Ok(self.root.join(name))
    }

    fn lock(&self) -> Result<File, ObjectError> {
        let path = self.root.join(LOCK);
        let file = File::options().create(true).append(true).open(&path).map_err(at(&path))?;
        file.lock().map_err(at(&path))?;
        Ok(file)
    }

    /// Call it under the lock.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ObjectError> {
        let dir = path.parent().unwrap_or(&self.root);
        self.make(dir)?;
        let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(dir).map_err(at(dir))?;
        file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(at(path))?;
        file.persist(path).map_err(|e| at(path)(e.error))?;
        sync(dir)
    }

    /// Makes a directory below the root, durably.
    fn make(&self, dir: &Path) -> Result<(), ObjectError> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(&self.root);
        self.make(parent)?;
        match fs::create_dir(dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(at(dir)(e)),
            _ => sync(parent),
        }
    }
}

impl Objects for Directory {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), ObjectError> {
        let path = self.path(name)?;
        let _lock = self.lock()?;
        self.write(&path, bytes)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, ObjectError> {
        self.swap(name, None, bytes)
    }

    fn swap(&self, name: &str, from: Option<&[u8]>, to: &[u8]) -> Result<bool, ObjectError> {
        let path = self.path(name)?;
        let _lock = self.lock()?;
        if read(&path)?.as_deref() != from {
            return Ok(false);
        }
        self.write(&path, to).map(|()| true)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        read(&self.path(name)?)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
        let mut found = Vec::new();
        each(&self.root, &mut |path, _| {
            let Some(name) = path.strip_prefix(&self.root).ok().and_then(Path::to_str) else { return Ok(()) };
            if !name.starts_with(prefix) || check_name(name).is_err() {
                return Ok(());
            }
            let Some(meta) = gone(fs::metadata(path)).map_err(at(path))? else { return Ok(()) };
            let written = meta.modified().map_err(at(path))?;
            let written_ms = written.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
            found.push(ObjectInfo { name: name.to_owned(), bytes: meta.len(), written_ms });
            Ok(())
        })?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn delete(&self, name: &str) -> Result<(), ObjectError> {
        let path = self.path(name)?;
        match gone(fs::remove_file(&path)).map_err(at(&path))? {
            Some(()) => sync(path.parent().unwrap_or(&self.root)),
            None => Ok(()),
        }
    }

    fn sweep(&self) -> Result<(), ObjectError> {
        // Whoever writes holds the lock: what is unfinished now is of a process that died.
        let _lock = self.lock()?;
        each(&self.root, &mut |path, name| {
            let unfinished = name.starts_with(TEMPORARY);
            if unfinished { fs::remove_file(path).map_err(at(path)) } else { Ok(()) }
        })?;
        sync(&self.root)
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> ObjectError {
    move |source| ObjectError::Io { place: path.display().to_string(), source }
}

/// `None` where the file is not there.
fn gone<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ObjectError> {
    gone(fs::read(path)).map_err(at(path))
}

/// Makes renames and removals in a directory durable.
fn sync(dir: &Path) -> Result<(), ObjectError> {
    match gone(File::open(dir).and_then(|d| d.sync_all())) {
        Ok(_) => Ok(()),
        Err(e) => Err(at(dir)(e)),
    }
}

/// Every file below a directory; one that is removed meanwhile is none.
fn each(
    dir: &Path,
    visit: &mut dyn FnMut(&Path, &str) -> Result<(), ObjectError>,
) -> Result<(), ObjectError> {
    let Some(entries) = gone(fs::read_dir(dir)).map_err(at(dir))? else { return Ok(()) };
    for entry in entries {
        let entry = entry.map_err(at(dir))?;
        let path = entry.path();
        if entry.file_type().map_err(at(&path))?.is_dir() {
            each(&path, visit)?;
        } else if let Some(name) = entry.file_name().to_str() {
            visit(&path, name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_listed_read_replaced_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Directory::open(dir.path()).unwrap();
        objects.put("a/b=1/c.bin", b"one").unwrap();
        objects.put("a/b=1/c.bin", b"two").unwrap();
        objects.put("z", b"").unwrap();
        let names = |prefix| -> Vec<_> {
            objects.list(prefix).unwrap().into_iter().map(|o| (o.name, o.bytes)).collect()
        };
        assert_eq!(names(""), [("a/b=1/c.bin".to_owned(), 3), ("z".to_owned(), 0)]);
        assert_eq!(names("a/b="), [("a/b=1/c.bin".to_owned(), 3)]);
        assert_eq!(objects.get("a/b=1/c.bin").unwrap().unwrap(), b"two");
        objects.delete("z").unwrap();
        objects.delete("z").unwrap();
        assert_eq!(objects.get("z").unwrap(), None);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Directory::open(&dir.path().join("in")).unwrap();
        for name in ["", "/a", "a/", "a//b", "..", "a/../b", ".lock", "a\\b", "a b", "ü", "a\0"] {
            assert!(matches!(objects.put(name, b"x"), Err(ObjectError::Name(_))), "{name:?}");
            assert!(matches!(objects.get(name), Err(ObjectError::Name(_))), "{name:?}");
        }
        assert!(objects.put(&"a".repeat(MAX), b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    const MAX: usize = super::super::MAX_NAME_BYTES + 1;

    #[test]
    fn of_many_that_swap_one_name_each_step_has_one_winner() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Directory::open(dir.path()).unwrap();
        assert!(objects.create("n", b"0").unwrap() && !objects.create("n", b"1").unwrap());
        let add = || {
            let mut won = 0;
            while won < 25 {
                let now = objects.get("n").unwrap().unwrap();
                let next = String::from_utf8(now.clone()).unwrap().parse::<u32>().unwrap() + 1;
                won += u32::from(objects.swap("n", Some(&now), next.to_string().as_bytes()).unwrap());
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(add))));
        assert_eq!(objects.get("n").unwrap().unwrap(), b"100");
    }

    #[test]
    fn what_a_crash_left_unfinished_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Directory::open(dir.path()).unwrap();
        objects.put("a/b", b"x").unwrap();
        fs::write(dir.path().join("a").join(format!("{TEMPORARY}1")), b"half").unwrap();
        assert_eq!(objects.list("").unwrap().len(), 1);
        drop(Directory::open(dir.path()).unwrap());
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }
}
