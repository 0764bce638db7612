//! A call's priority, which stands in its metadata as it does in the headers of an HTTP request.

use lately_rank::Priority;
use tonic::metadata::MetadataMap;

use crate::error::ApiError;
use crate::http::admitted::{PRIORITY, named_priority};

pub(super) fn priority(metadata: &MetadataMap) -> Result<Priority, ApiError> {
    named_priority(metadata.get(PRIORITY).map(|value| value.as_encoded_bytes()))
}
