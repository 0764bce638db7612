//! `lately.v1.Events`: the messages become the JSON forms' types, and go on as those do.

use std::collections::HashMap;
use std::sync::Arc;

use lately_features::Event;
use tonic::{Request, Response, Status};

use super::pb::lately as pb;
use crate::app::App;
use crate::ask;
use crate::error::ApiError;
use crate::http::events::{BatchReply, WireAction, WireEvent, WireImpression, WireUser, take};
use crate::http::items::WireItem;
use crate::http::users::{FeaturesReply, UserReply, forget, known};
use crate::http::values::{WireFeatures, WireValue};

pub(super) struct Events(pub(super) Arc<App>);

#[tonic::async_trait]
impl pb::events_server::Events for Events {
    async fn append_events(
        &self,
        call: Request<pb::AppendEventsRequest>,
    ) -> Result<Response<pb::BatchResponse>, Status> {
        let read = |event, now| read_event(event, now).map_err(|error| error.message);
        Ok(Response::new(take(&self.0, call.into_inner().events, read).await?.into()))
    }

    async fn put_items(
        &self,
        call: Request<pb::PutItemsRequest>,
    ) -> Result<Response<pb::BatchResponse>, Status> {
        let read = |item, now| read_item(item, now).map_err(|error| error.message);
        Ok(Response::new(take(&self.0, call.into_inner().items, read).await?.into()))
    }

    async fn get_user(
        &self,
        call: Request<pb::GetUserRequest>,
    ) -> Result<Response<pb::GetUserResponse>, Status> {
        let user = ask::user(&call.get_ref().user)?;
        Ok(Response::new(known(&self.0, user).await?.into()))
    }

    async fn delete_user(
        &self,
        call: Request<pb::DeleteUserRequest>,
    ) -> Result<Response<pb::DeleteUserResponse>, Status> {
        let user = ask::user(&call.get_ref().user)?;
        let removed_records = forget(&self.0, user.clone()).await?;
        Ok(Response::new(pb::DeleteUserResponse { user: user.into(), removed_records }))
    }
}

fn read_event(event: pb::Event, now: i64) -> Result<Event, ApiError> {
    use pb::event::Event as Kind;
    let event = match event.event {
        None => return Err(ask::bad("an event is empty: set action, impression or user")),
        Some(Kind::Action(e)) => WireEvent::Action(WireAction {
            event_id: ask::event(&e.event_id)?,
            user: ask::user(&e.user)?,
            item: ask::item(&e.item)?,
            action: e.action,
            time_ms: e.time_ms,
            request: e.request.as_deref().map(ask::request).transpose()?,
            surface: e.surface,
        }),
        Some(Kind::Impression(e)) => WireEvent::Impression(WireImpression {
            request: ask::request(&e.request)?,
            user: ask::user(&e.user)?,
            surface: e.surface,
            time_ms: e.time_ms,
            items: ask::items("items", e.items)?,
        }),
        Some(Kind::User(e)) => WireEvent::User(WireUser {
            user: ask::user(&e.user)?,
            time_ms: e.time_ms,
            features: features(e.features)?,
        }),
    };
    Ok(event.into_event(now))
}

fn read_item(item: pb::Item, now: i64) -> Result<Event, ApiError> {
    let item = WireItem {
        item: ask::item(&item.item)?,
        features: features(item.features)?,
        active: item.active.unwrap_or(true),
        time_ms: item.time_ms,
    };
    Ok(item.into_event(now))
}

fn features(features: HashMap<String, pb::FeatureValue>) -> Result<WireFeatures, ApiError> {
    use pb::feature_value::Value;
    let value = |(name, value): (String, pb::FeatureValue)| {
        let value = match value.value {
            Some(Value::Text(text)) => WireValue::Text(text),
            Some(Value::Number(number)) => WireValue::Number(number),
            Some(Value::Texts(texts)) => WireValue::Texts(texts.values),
            Some(Value::Vector(vector)) => WireValue::Vector(vector.values),
            None => return Err(ask::bad(format!("feature `{name}` has no value: set one or leave it out"))),
        };
        Ok((name, value))
    };
    features.into_iter().map(value).collect()
}

impl From<BatchReply> for pb::BatchResponse {
    fn from(reply: BatchReply) -> Self {
        let rejected = reply.rejected.into_iter().map(|r| pb::Rejected {
            index: r.index as u32, // at most 1,000
            code: r.code.to_owned(),
            message: r.message,
        });
        Self {
            accepted: reply.accepted as u64,
            duplicates: reply.duplicates as u64,
            watermark: reply.watermark,
            rejected: rejected.collect(),
        }
    }
}

impl From<UserReply> for pb::GetUserResponse {
    fn from(reply: UserReply) -> Self {
        let sequence = reply.sequence.into_iter().map(|e| pb::SequenceEntry {
            item: e.item,
            action: e.action,
            time_ms: e.time_ms,
            surface: e.surface,
        });
        Self { user: reply.user, sequence: sequence.collect(), features: reply.features.map(Into::into) }
    }
}

impl From<FeaturesReply> for pb::EncodedFeatures {
    fn from(reply: FeaturesReply) -> Self {
        let buckets = |(name, values)| (name, pb::Buckets { values });
        let vector = |(name, values)| (name, pb::Vector { values });
        Self {
            categorical: reply.categorical.into_iter().map(buckets).collect(),
            numeric: reply.numeric.into_iter().filter_map(|(name, x)| Some((name, x?))).collect(),
            embedding: reply.embedding.into_iter().map(vector).collect(),
        }
    }
}
