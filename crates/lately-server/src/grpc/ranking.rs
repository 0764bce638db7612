//! `lately.v1.Ranking`. Next: `lately-rank/src/ranker.rs`.

use std::sync::Arc;
use std::time::Duration;

use lately_rank as rank;
use tonic::{Request, Response, Status};

use super::deadline::waits;
use super::pb::lately as pb;
use super::priority::priority;
use crate::app::App;
use crate::ask;
use crate::error::ApiError;
use crate::http::feed::default_limit;

pub(super) struct Ranking(pub(super) Arc<App>);

#[tonic::async_trait]
impl pb::ranking_server::Ranking for Ranking {
    async fn rank(&self, call: Request<pb::RankRequest>) -> Result<Response<pb::RankResponse>, Status> {
        let (metadata, extensions, message) = call.into_parts();
        let permit = self.0.admit(priority(&metadata)?).await?;
        let mut ask = ranking(message)?;
        ask.deadline = self.0.deadlines.of(ask.deadline, waits(&extensions));
        Ok(Response::new(self.0.rank(permit, ask).await?.into()))
    }

    async fn feed(&self, call: Request<pb::FeedRequest>) -> Result<Response<pb::RankResponse>, Status> {
        let (metadata, extensions, message) = call.into_parts();
        let permit = self.0.admit(priority(&metadata)?).await?;
        let mut ask = feed(message)?;
        ask.deadline = self.0.deadlines.of(ask.deadline, waits(&extensions));
        Ok(Response::new(self.0.feed(permit, ask).await?.into()))
    }

    async fn list_models(
        &self,
        _: Request<pb::ListModelsRequest>,
    ) -> Result<Response<pb::ListModelsResponse>, Status> {
        let slot = self.0.ranker.slot();
        let models = slot.current().map(|champion| model("champion", champion.summary()));
        let schema_hash = slot.schema_hash().to_owned();
        Ok(Response::new(pb::ListModelsResponse { schema_hash, models: models.into_iter().collect() }))
    }
}

fn ranking(message: pb::RankRequest) -> Result<rank::RankRequest, ApiError> {
    let mut rules = rank::Rules { spacing: message.spacing, ..rank::Rules::default() };
    for rule in message.drop {
        match pb::DropRule::try_from(rule) {
            Ok(pb::DropRule::Hidden) => rules.hidden = true,
            Ok(pb::DropRule::Shown) => rules.shown = true,
            _ => {
                return Err(ask::bad(format!(
                    "drop: no rule {rule}: send DROP_RULE_HIDDEN or DROP_RULE_SHOWN"
                )));
            }
        }
    }
    Ok(rank::RankRequest {
        surface: message.surface,
        limit: message.limit.map(|limit| limit as usize),
        request: message.request.as_deref().map(ask::request).transpose()?,
        deadline: message.deadline_ms.map(Duration::from_millis),
        explain: message.explain,
        pins: pins(message.pins)?,
        rules,
        ..rank::RankRequest::new(ask::user(&message.user)?, ask::items("candidates", message.candidates)?)
    })
}

fn pins(pins: Vec<pb::Pin>) -> Result<Vec<rank::Pin>, ApiError> {
    let pin = |pin: pb::Pin| {
        let position = u16::try_from(pin.position)
            .map_err(|_| ask::bad(format!("pins: position {}: it must be 0 to 65,535", pin.position)))?;
        Ok(rank::Pin { item: ask::item(&pin.item)?, position })
    };
    pins.into_iter().map(pin).collect()
}

fn feed(message: pb::FeedRequest) -> Result<rank::FeedRequest, ApiError> {
    let limit = message.limit.map_or_else(default_limit, |limit| limit as usize);
    Ok(rank::FeedRequest {
        surface: message.surface,
        request: message.request.as_deref().map(ask::request).transpose()?,
        deadline: message.deadline_ms.map(Duration::from_millis),
        explain: message.explain,
        pins: pins(message.pins)?,
        ..rank::FeedRequest::new(ask::user(&message.user)?, limit)
    })
}

fn model(alias: &str, m: rank::ModelSummary) -> pb::Model {
    pb::Model {
        alias: alias.to_owned(),
        version: m.version,
        generation: m.generation,
        schema_hash: m.schema_hash,
        heads: m.heads,
        embedding_version: m.embedding_version,
        data_range: m.data_range_ms.map(|(from_ms, to_ms)| pb::TimeRange { from_ms, to_ms }),
        parent: m.parent,
        parameters: m.parameters as u64,
        precision: m.precision.to_owned(),
        device: m.device,
    }
}

impl From<rank::RankResponse> for pb::RankResponse {
    fn from(r: rank::RankResponse) -> Self {
        let item = |i: rank::RankedItem| pb::RankedItem {
            item: i.item.into(),
            score: i.score,
            probabilities: i.heads,
            source: i.source.map(|source| source.name().to_owned()),
        };
        let dropped =
            |d: rank::Dropped| pb::DroppedItem { item: d.item.into(), reason: d.reason.name().to_owned() };
        let explain = |e: rank::Explain| pb::Explain {
            weights: e.weights,
            tokens: u32::try_from(e.tokens).unwrap_or(u32::MAX),
            newest_action_age_ms: e.newest_action_age_ms,
        };
        let model = |m: rank::ModelRef| pb::ModelRef {
            version: m.version,
            generation: m.generation,
            embedding_version: m.embedding_version,
        };
        Self {
            request: r.request.into(),
            user: r.user.into(),
            model: r.model.map(model),
            schema_hash: r.schema_hash,
            watermark: r.watermark,
            degraded: r.degraded.into_iter().map(|rung| rung.name().to_owned()).collect(),
            heads: r.heads,
            items: r.items.into_iter().map(item).collect(),
            dropped: r.dropped.into_iter().map(dropped).collect(),
            explain: r.explain.map(explain),
            sequence_age_ms: r.sequence_age_ms,
            timings_us: r.timings_us.into_iter().map(|(stage, us)| (stage.to_owned(), us)).collect(),
        }
    }
}
