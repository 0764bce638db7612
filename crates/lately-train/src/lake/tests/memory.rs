//! Objects in memory that fail where a test wants them to.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use lately_store::objects::{ObjectError, ObjectInfo, Objects};

/// Objects in memory. After `left` changes all further ones fail, as if the process had been killed.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) objects: Mutex<BTreeMap<String, Vec<u8>>>,
    pub(super) left: AtomicI64,
}

impl Default for Memory {
    fn default() -> Self {
        Self { objects: Mutex::default(), left: AtomicI64::new(i64::MAX) }
    }
}

impl Memory {
    fn change(&self, name: &str) -> Result<(), ObjectError> {
        match self.left.fetch_sub(1, Ordering::Relaxed) > 0 {
            true => Ok(()),
            false => Err(ObjectError::Io { place: name.to_owned(), source: Error::from(ErrorKind::Other) }),
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }
}

impl Objects for Memory {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), ObjectError> {
        self.change(name)?;
        self.objects.lock().unwrap().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, ObjectError> {
        self.swap(name, None, bytes)
    }

    fn swap(&self, name: &str, from: Option<&[u8]>, to: &[u8]) -> Result<bool, ObjectError> {
        self.change(name)?;
        let mut objects = self.objects.lock().unwrap();
        let is = objects.get(name).map(Vec::as_slice) == from;
        if is {
            objects.insert(name.to_owned(), to.to_vec());
        }
        Ok(is)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        Ok(self.objects.lock().unwrap().get(name).cloned())
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
        let info = |(name, bytes): (&String, &Vec<u8>)| ObjectInfo {
            name: name.clone(),
            bytes: bytes.len() as u64,
            written_ms: 0,
        };
        let objects = self.objects.lock().unwrap();
        Ok(objects.iter().filter(|(name, _)| name.starts_with(prefix)).map(info).collect())
    }

    fn delete(&self, name: &str) -> Result<(), ObjectError> {
        self.change(name)?;
        self.objects.lock().unwrap().remove(name);
        Ok(())
    }
}
