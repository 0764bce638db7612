/// Why the model refuses a configuration or a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// A value of the configuration is outside its range.
    #[error("model configuration: `{key}` is {value}: it must be {range}")]
    Config {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// The allowed range in words.
        range: String,
    },
    /// The schema is not valid.
    #[error(transparent)]
    Schema(#[from] lately_features::SchemaError),
    /// An array of the batch has the wrong length: it was assembled by another schema.
    #[error("batch: {what} has {got} entries, {want} expected: assemble it by the model's schema")]
    Length {
        /// The array.
        what: &'static str,
        /// Expected length.
        want: usize,
        /// Its length.
        got: usize,
    },
    /// An index of the batch is outside its table.
    #[error("batch: {what} holds {got}, the largest allowed is {limit}: assemble it by the model's schema")]
    Index {
        /// The array.
        what: &'static str,
        /// The index.
        got: u64,
        /// Largest allowed value.
        limit: u64,
    },
    /// A number that must be finite is not.
    #[error("{0} holds a number that is not finite: check the features that were written")]
    NotFinite(&'static str),
}

impl ModelError {
    pub(crate) fn length(what: &'static str, want: usize, got: usize) -> Result<(), Self> {
        if want == got { Ok(()) } else { Err(Self::Length { what, want, got }) }
    }
}
