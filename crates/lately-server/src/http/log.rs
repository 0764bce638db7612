//! `GET /admin/v1/log`: pages of the log, for a training that runs as its own process beside the server.
//!
//! A page is binary: for each record its offset (u64), its length in bytes (u32), both little-endian, and the bytes of
//! [`lately_features::codec`]. An empty page is the log's end. [`read_page`] reads one.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use lately_features::codec::{self, CodecError};
use lately_features::event::Event;
use serde::Deserialize;

use crate::app::App;
use crate::error::ApiError;
use crate::json::Params;

/// Most records of a page.
const PAGE: usize = 4_096;
/// Bytes in front of a record.
const HEAD: usize = 12;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    /// First offset of the page.
    #[serde(default)]
    from: u64,
}

pub(super) async fn page(
    State(app): State<Arc<App>>,
    Params(ask): Params<Ask>,
) -> Result<Response, ApiError> {
    let store = app.store.clone();
    let records = app.writes.run(move || store.read(ask.from, PAGE)).await??;
    let mut body = Vec::new();
    for (offset, event) in &records {
        let bytes =
            codec::encode(event).map_err(|error| ApiError::internal("writing a log record", &error))?;
        body.extend_from_slice(&offset.to_le_bytes());
        body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        body.extend_from_slice(&bytes);
    }
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

/// Reads a page of `GET /admin/v1/log`: records in the order of the log.
///
/// # Errors
/// [`CodecError`] where the bytes are cut or no record.
pub fn read_page(mut bytes: &[u8]) -> Result<Vec<(u64, Event)>, CodecError> {
    let cut = || CodecError::Damaged("a page of the log is cut".to_owned());
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at_checked(HEAD).ok_or_else(cut)?;
        let (offset, length) = head.split_at(8);
        let offset = u64::from_le_bytes(offset.try_into().map_err(|_| cut())?);
        let length = u32::from_le_bytes(length.try_into().map_err(|_| cut())?);
        let (record, rest) = rest.split_at_checked(length as usize).ok_or_else(cut)?;
        records.push((offset, codec::decode(record)?));
        bytes = rest;
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_page_is_an_error() {
        assert_eq!(read_page(&[]), Ok(Vec::new()));
        for cut in [1, 11, 12, 13] {
            let mut page = Vec::from(7u64.to_le_bytes());
            page.extend_from_slice(&9u32.to_le_bytes());
            page.extend_from_slice(&[1, 0]);
            assert!(read_page(&page[..cut]).is_err(), "{cut}");
        }
    }
}
