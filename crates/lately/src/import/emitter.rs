//! Hands events to the sink in chunks, counting them.

use lately_features::event::{Action, FeatureValues, Impression, ImpressionItem, Item, User};
use lately_features::{Event, EventId, ItemId, RequestId, UserId};

use super::{ImportError, ImportReport, Sink};

/// Events in a chunk: large enough that a group commit costs little, small enough to hold.
const CHUNK: usize = 4096;

pub(super) struct Emitter<'a, 'b> {
    sink: &'a mut Sink<'b>,
    chunk: Vec<Event>,
    pub(super) report: ImportReport,
}

impl<'a, 'b> Emitter<'a, 'b> {
    pub(super) fn new(report: ImportReport, sink: &'a mut Sink<'b>) -> Self {
        Self { sink, chunk: Vec::with_capacity(CHUNK), report }
    }

    pub(super) fn push(&mut self, event: Event) -> Result<(), ImportError> {
        self.report.events += 1;
        self.report.actions += u64::from(matches!(event, Event::Action(_)));
        self.chunk.push(event);
        if self.chunk.len() < CHUNK {
            return Ok(());
        }
        (self.sink)(std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK))).map_err(ImportError::Sink)
    }

    /// Hands over the rest.
    pub(super) fn finish(self) -> Result<ImportReport, ImportError> {
        if !self.chunk.is_empty() {
            (self.sink)(self.chunk).map_err(ImportError::Sink)?;
        }
        Ok(self.report)
    }
}

pub(super) fn user(user: UserId, time_ms: i64, features: FeatureValues) -> Event {
    Event::User(User { user, time_ms, features })
}

pub(super) fn item(item: ItemId, time_ms: i64, features: FeatureValues, active: bool) -> Event {
    Event::Item(Item { item, time_ms, features, active })
}

/// One item, shown by someone else's system: no model, no watermark.
pub(super) fn shown(
    request: RequestId,
    user: UserId,
    item: ItemId,
    time_ms: i64,
    surface: Option<String>,
) -> Event {
    let items = vec![ImpressionItem::unscored(item, 0)];
    Event::Impression(Impression::outside(request, user, surface, time_ms, items))
}

pub(super) fn action(
    event_id: String,
    user: UserId,
    item: ItemId,
    action: &str,
    time_ms: i64,
    request: Option<RequestId>,
    surface: Option<String>,
) -> Result<Event, ImportError> {
    let event_id = EventId::new(event_id)?;
    Ok(Event::Action(Action { event_id, user, item, action: action.to_owned(), time_ms, request, surface }))
}
