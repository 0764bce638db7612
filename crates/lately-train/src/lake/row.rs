//! A request on its way into the lake: all that is known when it is ranked, until its labels have come.

use std::sync::Arc;

use lately_features::{Features, Impression, RequestId, Token};
use serde::{Deserialize, Serialize};

use crate::join::{is_degraded, watermark};
use crate::known::{Known, Version, View};

/// Why a request is no example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Excluded {
    /// The server had degraded other than by having no model yet.
    Degraded,
    /// Its user acts more often than people do.
    Bot,
    /// More was logged between its watermark and itself than is kept.
    Unknowable,
}

impl Excluded {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Bot => "bot",
            Self::Unknowable => "unknowable",
        }
    }
}

/// One token; `V` names its item at a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RowToken<V> {
    pub(crate) time_ms: i64,
    pub(crate) actions: u64,
    pub(crate) item: V,
    pub(crate) surface: u16,
    pub(crate) action: u8,
}

/// One candidate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RowCandidate<V> {
    pub(crate) item: V,
    pub(crate) score: f32,
    pub(crate) position: u16,
}

/// One request without its labels.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row<V> {
    pub(crate) offset: u64,
    pub(crate) request: RequestId,
    /// Number of the user.
    pub(crate) user: u32,
    pub(crate) time_ms: i64,
    pub(crate) surface: u16,
    pub(crate) core: bool,
    pub(crate) watermark: u64,
    pub(crate) model: Option<Box<str>>,
    pub(crate) embedding_version: Option<Box<str>>,
    pub(crate) variant: Option<Box<str>>,
    pub(crate) degraded: Vec<String>,
    pub(crate) excluded: Option<Excluded>,
    pub(crate) features: Option<Arc<Features>>,
    pub(crate) tokens: Box<[RowToken<V>]>,
    pub(crate) candidates: Box<[RowCandidate<V>]>,
    pub(crate) propensities: Box<[f32]>,
    /// Candidates x heads; empty where no model scored all of them.
    pub(crate) heads: Box<[f32]>,
}

impl Row<Arc<Version>> {
    /// A request as it is known at its place in the log; `items` are the numbers of what it shows.
    pub(crate) fn new(
        known: &Known,
        user: u32,
        offset: u64,
        e: &Impression,
        items: &[u32],
        bot: bool,
    ) -> Self {
        let watermark = watermark(e, offset);
        let view = known.view(user, watermark);
        let excluded = match () {
            () if is_degraded(&e.degraded) => Some(Excluded::Degraded),
            () if view.tokens.is_none() => Some(Excluded::Unknowable),
            () if bot => Some(Excluded::Bot),
            () => None,
        };
        let candidate = |(item, shown): (&u32, &lately_features::ImpressionItem)| RowCandidate {
            item: known.item_at(*item, watermark).clone(),
            score: shown.score,
            position: shown.position,
        };
        let text = |text: &Option<String>| text.as_deref().map(Box::from);
        let core = view.is_core(&known.schema);
        let View { tokens, items: token_items, features } = view;
        Self {
            offset,
            request: e.request.clone(),
            user,
            time_ms: e.time_ms,
            surface: e.surface.as_deref().and_then(|s| known.schema.surface(s)).unwrap_or(0),
            core,
            watermark,
            model: text(&e.model),
            embedding_version: text(&e.embedding_version),
            variant: text(&e.variant),
            degraded: e.degraded.clone(),
            excluded,
            features,
            tokens: tokens.iter().flatten().zip(token_items).map(row_token).collect(),
            candidates: items.iter().zip(&e.items).map(candidate).collect(),
            propensities: e.propensities.as_slice().into(),
            heads: heads(e),
        }
    }
}

fn row_token((token, item): (&Token, Arc<Version>)) -> RowToken<Arc<Version>> {
    let Token { time_ms, actions, surface, action, .. } = *token;
    RowToken { time_ms, actions, item, surface, action }
}

fn heads(e: &Impression) -> Box<[f32]> {
    let width = e.items.first().map_or(0, |i| i.heads.len());
    match e.items.iter().all(|i| i.heads.len() == width) {
        true => e.items.iter().flat_map(|i| i.heads.iter().copied()).collect(),
        false => Box::default(),
    }
}

impl<V> Row<V> {
    /// The same row with its items named otherwise.
    pub(crate) fn map<W>(self, mut to: impl FnMut(V) -> W) -> Row<W> {
        let mut token = |t: RowToken<V>| RowToken {
            time_ms: t.time_ms,
            actions: t.actions,
            item: to(t.item),
            surface: t.surface,
            action: t.action,
        };
        let tokens = self.tokens.into_iter().map(&mut token).collect();
        let candidate =
            |c: RowCandidate<V>| RowCandidate { item: to(c.item), score: c.score, position: c.position };
        Row {
            tokens,
            candidates: self.candidates.into_iter().map(candidate).collect(),
            offset: self.offset,
            request: self.request,
            user: self.user,
            time_ms: self.time_ms,
            surface: self.surface,
            core: self.core,
            watermark: self.watermark,
            model: self.model,
            embedding_version: self.embedding_version,
            variant: self.variant,
            degraded: self.degraded,
            excluded: self.excluded,
            features: self.features,
            propensities: self.propensities,
            heads: self.heads,
        }
    }
}
