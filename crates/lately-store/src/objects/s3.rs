//! Objects on S3-compatible storage.
//!
//! Of two that create or swap one name at once, the storage says which one wins (`If-None-Match`, `If-Match`): it must
//! know these headers, as S3 itself, MinIO and R2 do. A write that depends on one is never sent twice, as the second
//! could be refused because of the first; its answer, if it is lost, is an error.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
};
use url::{Host, Url};

use super::resolve::shown;
use super::{ObjectError, ObjectInfo, Objects, check_name};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest that a request may take, its body included: 1 GiB at 9 MB/s.
const REQUEST: Duration = Duration::from_secs(120);
/// Times that a request is sent again after an answer of 5xx or none, where that cannot change what happens.
const RETRIES: usize = 3;
/// Longest from a request to its last repetition.
const RETRY_TIME: Duration = Duration::from_secs(180);
/// Times that a conditional write is tried while the storage answers that another one is in work.
const CONFLICTS: u32 = 8;
/// Wait after the first such answer; it doubles.
const CONFLICT_WAIT: Duration = Duration::from_millis(20);
/// Longest text of an error that is passed on, characters.
const REASON: usize = 200;

/// The bytes of an object and the tag of this state of it.
type Tagged = (Vec<u8>, Option<String>);

/// Objects of a bucket whose names begin with a prefix.
pub struct S3 {
    /// For what may be sent again.
    steady: AmazonS3,
    /// For what may be sent once.
    once: AmazonS3,
    prefix: String,
    place: String,
    /// What must not be shown.
    secrets: Vec<String>,
    /// All methods block; `None` only while it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3").field("place", &self.place).finish_non_exhaustive()
    }
}

impl S3 {
    /// Opens `s3://BUCKET/PREFIX`, or a bucket as a whole. Of the variables those that begin with `AWS_` count. Nothing is
    /// asked of the storage yet.
    ///
    /// # Errors
    /// [`ObjectError::Uri`] where it is no such URI, or an endpoint would be spoken to without TLS that is not this
    /// machine.
    pub fn open(
        uri: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ObjectError> {
        let refused = |reason: String| ObjectError::Uri { uri: shown(uri), reason };
        let (bucket, prefix) = parts(uri).map_err(refused)?;
        let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
        for (name, value) in variables.into_iter().filter(|(name, _)| name.starts_with("AWS_")) {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        let mut http = false;
        for key in
            [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::StsEndpoint]
        {
            if let Some(endpoint) = builder.get_config_value(&key) {
                http |= plain(&endpoint).map_err(refused)?;
            }
        }
        let secrets = secrets(&builder);
        let client =
            ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(REQUEST).with_allow_http(http);
        // Whoever installed one before us has it.
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("the process has its TLS already");
        }
        let build = |max_retries| {
            let retry = RetryConfig { max_retries, retry_timeout: RETRY_TIME, ..RetryConfig::default() };
            let built = builder.clone().with_client_options(client.clone()).with_retry(retry).build();
            built.map_err(|e| refused(reason(&e, &secrets)))
        };
        let (steady, once) = (build(RETRIES)?, build(0)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("objects")
            .enable_all()
            .build()
            .map_err(|source| ObjectError::Io { place: shown(uri), source })?;
        let (prefix, place) = match prefix {
            "" => (String::new(), format!("s3://{bucket}")),
            prefix => (format!("{prefix}/"), format!("s3://{bucket}/{prefix}")),
        };
        Ok(Self { steady, once, prefix, place, secrets, runtime: Some(runtime) })
    }

    fn path(&self, name: &str) -> Result<Path, ObjectError> {
        check_name(name)?;
        Path::parse(format!("{}{name}", self.prefix)).map_err(|_| ObjectError::Name(name.to_owned()))
    }

    fn wait<T>(&self, name: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, ObjectError> {
        let Some(runtime) = &self.runtime else { return Err(self.failed(name, "closed".to_owned())) };
        runtime.block_on(work).map_err(|e| self.failed(name, reason(&e, &self.secrets)))
    }

    fn failed(&self, name: &str, reason: String) -> ObjectError {
        ObjectError::Remote { place: format!("{}/{name}", self.place), reason }
    }

    /// `None` where there is no such object.
    fn tagged(&self, name: &str) -> Result<Option<Tagged>, ObjectError> {
        let path = self.path(name)?;
        self.wait(name, async {
            match self.steady.get(&path).await {
                Ok(found) => {
                    let tag = found.meta.e_tag.clone();
                    Ok(Some((found.bytes().await?.into(), tag)))
                }
                Err(e) if is_missing(&e) => Ok(None),
                Err(e) => Err(e),
            }
        })
    }

    /// Writes if the storage finds `mode` to hold; `None` where it could not tell, as another write is in work.
    fn write_if(&self, name: &str, mode: PutMode, bytes: &[u8]) -> Result<Option<bool>, ObjectError> {
        let path = self.path(name)?;
        let creates = matches!(mode, PutMode::Create);
        let options = PutOptions { mode, ..PutOptions::default() };
        let payload = PutPayload::from(bytes.to_vec());
        self.wait(name, async {
            match self.once.put_opts(&path, payload, options).await {
                Ok(_) => Ok(Some(true)),
                Err(Error::Precondition { .. }) => Ok(Some(false)),
                // 412 and 409 alike where it creates: if there is one, it was the former.
                Err(Error::AlreadyExists { .. }) if creates => match self.steady.head(&path).await {
                    Ok(_) => Ok(Some(false)),
                    Err(e) if is_missing(&e) => Ok(None),
                    Err(e) => Err(e),
                },
                Err(Error::AlreadyExists { .. }) => Ok(None),
                Err(e) => Err(e),
            }
        })
    }
}

impl Objects for S3 {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), ObjectError> {
        let path = self.path(name)?;
        let payload = PutPayload::from(bytes.to_vec());
        self.wait(name, async { self.steady.put(&path, payload).await.map(drop) })
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, ObjectError> {
        self.swap(name, None, bytes)
    }

    fn swap(&self, name: &str, from: Option<&[u8]>, to: &[u8]) -> Result<bool, ObjectError> {
        for attempt in 0..CONFLICTS {
            let mode = match from {
                None => PutMode::Create,
                Some(from) => match self.tagged(name)? {
                    Some((bytes, e_tag)) if bytes == from => {
                        PutMode::Update(object_store::UpdateVersion { e_tag, version: None })
                    }
                    _ => return Ok(false),
                },
            };
            if let Some(written) = self.write_if(name, mode, to)? {
                return Ok(written);
            }
            std::thread::sleep(CONFLICT_WAIT * (1 << attempt));
        }
        Err(self
            .failed(name, format!("another write is in work, after {CONFLICTS} attempts; try again later")))
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        Ok(self.tagged(name)?.map(|(bytes, _)| bytes))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
        let whole = format!("{}{prefix}", self.prefix);
        let mut found = Vec::new();
        let mut page_token = None;
        loop {
            let options = PaginatedListOptions { page_token, ..PaginatedListOptions::default() };
            let page = self.wait(prefix, self.steady.list_paginated(Some(&whole), options))?;
            for object in page.result.objects {
                let Some(name) = object.location.as_ref().strip_prefix(&self.prefix) else { continue };
                if check_name(name).is_ok() {
                    let written_ms = object.last_modified.timestamp_millis();
                    found.push(ObjectInfo { name: name.to_owned(), bytes: object.size, written_ms });
                }
            }
            page_token = page.page_token;
            if page_token.is_none() {
                break;
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn delete(&self, name: &str) -> Result<(), ObjectError> {
        let path = self.path(name)?;
        self.wait(name, async {
            match self.steady.delete(&path).await {
                Err(e) if !is_missing(&e) => Err(e),
                _ => Ok(()),
            }
        })
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // To wait for its thread would be refused inside of another runtime; no request is in work here.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Bucket and prefix of a URI.
fn parts(uri: &str) -> Result<(&str, &str), String> {
    let rest = uri.strip_prefix("s3://").unwrap_or_default();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(allowed) {
        return Err("write s3://BUCKET/PREFIX; credentials come from AWS_ACCESS_KEY_ID and \
                    AWS_SECRET_ACCESS_KEY"
            .to_owned());
    }
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() {
        check_name(prefix).map_err(|e| e.to_string())?;
    }
    Ok((bucket, prefix))
}

/// Whether an endpoint is spoken to without TLS: only one of this machine may be.
fn plain(endpoint: &str) -> Result<bool, String> {
    let url = Url::parse(endpoint).map_err(|e| format!("AWS_ENDPOINT is no URL: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "AWS_ENDPOINT must not hold credentials: use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                .to_owned(),
        );
    }
    let here = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(false),
        "http" if here => Ok(true),
        "http" => Err("AWS_ENDPOINT is http and not of this machine: use https".to_owned()),
        other => Err(format!("AWS_ENDPOINT begins with `{other}`: use https")),
    }
}

fn secrets(builder: &AmazonS3Builder) -> Vec<String> {
    use AmazonS3ConfigKey::{AccessKeyId, SecretAccessKey, Token};
    let values =
        [AccessKeyId, SecretAccessKey, Token].into_iter().filter_map(|k| builder.get_config_value(&k));
    values.filter(|value| !value.is_empty()).collect()
}

/// Whether the object is missing; a missing bucket is a failure.
fn is_missing(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) && !error.to_string().contains("NoSuchBucket")
}

/// What went wrong, without the body of an answer, which may repeat the key and what was signed, but for its code.
fn reason(error: &Error, secrets: &[String]) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let text = last.to_string();
    let (said, body) = text.split_once('<').unwrap_or((&text, ""));
    let code =
        body.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
    let mut reason = said.trim_end_matches([' ', ':']).to_owned();
    if let Some(code) = code {
        reason = format!("{reason}: {code}");
    }
    secrets.iter().for_each(|secret| reason = reason.replace(secret.as_str(), "..."));
    reason.chars().take(REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What S3 answers to a wrong secret.
    const BODY: &str = "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?><Error>\
        <Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIAKEY</AWSAccessKeyId><StringToSign>x</StringToSign></Error>";

    #[test]
    fn a_reason_holds_the_code_of_an_answer_and_nothing_that_was_signed() {
        let error = |text: &str| Error::Generic { store: "S3", source: text.to_owned().into() };
        let said = reason(&error(BODY), &[]);
        assert_eq!(said, "Server returned non-2xx status code: 403 Forbidden: SignatureDoesNotMatch");
        assert_eq!(reason(&error("token abc was refused"), &["abc".to_owned()]), "token ... was refused");
    }
}
