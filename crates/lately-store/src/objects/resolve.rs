//! From a URI to the engine that keeps the objects.

use std::path::Path;
use std::sync::Arc;

use super::{Directory, ObjectError, Objects};

/// Opens where objects are kept: a path or `file://PATH` is a local directory; `s3://BUCKET/PREFIX` is S3-compatible
/// storage, for which the usual variables `AWS_*` give region, endpoint and credentials.
///
/// # Errors
/// [`ObjectError::Uri`] where it names no engine that was built in; the engine's own.
pub fn open(uri: &str) -> Result<Arc<dyn Objects>, ObjectError> {
    match uri.split_once("://") {
        None => Ok(Arc::new(Directory::open(Path::new(uri))?)),
        Some(("file", path)) => Ok(Arc::new(Directory::open(Path::new(path))?)),
        Some(("s3", _)) => remote(uri),
        Some((scheme, _)) => {
            let reason = format!("`{scheme}` is none of `file` and `s3`");
            Err(ObjectError::Uri { uri: shown(uri), reason })
        }
    }
}

#[cfg(feature = "s3")]
fn remote(uri: &str) -> Result<Arc<dyn Objects>, ObjectError> {
    let text = |v: std::ffi::OsString| v.into_string().ok();
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
    Ok(Arc::new(super::S3::open(uri, variables)?))
}

#[cfg(not(feature = "s3"))]
fn remote(uri: &str) -> Result<Arc<dyn Objects>, ObjectError> {
    let reason = "this program was built without S3: build it with `cargo build --release --features s3`";
    Err(ObjectError::Uri { uri: shown(uri), reason: reason.to_owned() })
}

/// A URI without what stands before an `@`: it may be a password.
pub(super) fn shown(uri: &str) -> String {
    match uri.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, rest)) => format!("{scheme}://...@{rest}"),
            None => uri.to_owned(),
        },
        None => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_file_uri_are_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("models");
        open(path.to_str().unwrap()).unwrap().put("a", b"x").unwrap();
        assert_eq!(open(&format!("file://{}", path.display())).unwrap().get("a").unwrap().unwrap(), b"x");
    }

    #[test]
    fn what_names_no_engine_is_refused_without_its_password() {
        let error = open("ftp://me:hunter2@host/x").unwrap_err().to_string();
        assert!(
            error.contains("`ftp`") && error.contains("...@host/x") && !error.contains("hunter2"),
            "{error}"
        );
        #[cfg(not(feature = "s3"))]
        assert!(open("s3://bucket/x").unwrap_err().to_string().contains("--features s3"));
    }
}
