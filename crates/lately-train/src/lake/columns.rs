//! The columns of the lake's files; `docs/lake.md` says what each means.

use parquet::data_type::ByteArray;
use parquet::errors::Result;
use parquet::file::reader::FileReader;

use super::cells::{Cells, Shape};
use super::table::{self, Coding, Def, GROUP_ROWS, Kind, table};

table! {
    /// Requests: the user part once, candidates as parallel lists.
    Requests, "request" {
        offset: i64 = One Long Delta,
        request: ByteArray = One Text Plain,
        user: ByteArray = One Text Dictionary,
        time: i64 = One Time Delta,
        surface: i32 = One Int Dictionary,
        core: bool = One Flag Plain,
        watermark: i64 = One Long Delta,
        model: ByteArray = Maybe Text Dictionary,
        embedding_version: ByteArray = Maybe Text Dictionary,
        variant: ByteArray = Maybe Text Dictionary,
        degraded: ByteArray = List Text Dictionary,
        excluded: ByteArray = Maybe Text Dictionary,
        negative_rate: f32 = One Float Dictionary,
        user_categorical: i32 = MaybeList Int Dictionary,
        user_numeric: f32 = MaybeList Float Plain,
        user_embedding: f32 = MaybeList Float Plain,
        token_time: i64 = List Time Plain,
        token_action: i32 = List Int Dictionary,
        token_actions: i64 = List Long Dictionary,
        token_surface: i32 = List Int Dictionary,
        token_item: i32 = List Int Plain,
        candidate_item: i32 = List Int Dictionary,
        candidate_position: i32 = List Int Delta,
        candidate_score: f32 = List Float Split,
        candidate_propensity: f32 = MaybeList Float Split,
        candidate_observed: i64 = List Long Dictionary,
        candidate_heads: f32 = List Float Split,
    }
}

table! {
    /// Items of a file of requests, each version once: `token_item` and `candidate_item` are rows of it.
    Items, "item" {
        item: ByteArray = One Text Plain,
        offset: i64 = Maybe Long Delta,
        categorical: i32 = MaybeList Int Plain,
        numeric: f32 = MaybeList Float Plain,
        embedding: f32 = MaybeList Float Split,
    }
}

table! {
    /// What was observed after a request's row was written: it takes the place of `candidate_observed`.
    Corrections, "correction" {
        offset: i64 = One Long Delta,
        candidate: i32 = One Int Dictionary,
        observed: i64 = One Long Dictionary,
    }
}
