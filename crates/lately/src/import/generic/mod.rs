//! Any tables, through a mapping file beside them. CSV, JSON lines (both also gzip) or Parquet, by content.
//!
//! ```toml
//! [impressions]                       # one shown item a row
//! file = "shown.csv"
//! user = "user_id"                    # on the right: names of columns
//! item = "post_id"
//! time = "shown_at"
//! time_unit = "rfc3339"               # ms (default), s or rfc3339
//! surface = "page"                    # optional, like request and position
//! request = "list_id"                 # rows with one value were one list
//! flags = { liked = "save" }          # a column that is 1 or true, and the action of the schema
//! always = ["seen"]                   # what each row stands for
//!
//! [actions]                           # one action a row
//! file = "acts.jsonl"
//! user = "user_id"
//! item = "post_id"
//! time = "at"
//! action = "kind"
//! names = { like = "save" }           # the data's name, and the schema's where it differs
//!
//! [items]                             # likewise [users]
//! file = "posts.parquet"
//! id = "post_id"
//! features = { vector = "embedding", topic = "tags" }   # a feature of the schema, and its column
//! ```
//!
//! Each row passes the same checks as an event that comes over HTTP. All events are held in memory to bring them in
//! the order of time, some 300 bytes each.

mod mapping;
pub(super) mod rows;

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use lately_features::event::{Action, FeatureValues, Impression, ImpressionItem, Item, MIN_TIME_MS, User};
use lately_features::schema::FeatureKind;
use lately_features::{Event, EventId, FeatureValue, ItemId, RequestId, Schema, UserId};

pub use self::mapping::{Actions, Entities, Impressions, Mapping, TimeUnit};
use self::rows::{Cell, Row};
use super::emitter::Emitter;
use super::table::{cut, file_name};
use super::{ImportError, ImportReport, Sink};

/// Events that have been read, in ingest order.
#[derive(Debug)]
pub struct Tables {
    events: Vec<Event>,
    report: ImportReport,
}

/// Reads all files that the mapping at `mapping` names; times are checked against the clock. Fails where more than
/// `max_bad` rows are bad.
pub fn read(mapping: &Path, schema: &Schema, max_bad: u64) -> Result<Tables, ImportError> {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let names = Mapping::read(mapping, schema)?;
    let dir = mapping.parent().unwrap_or(Path::new("."));
    let mut reader = Reader::new(schema, now_ms);
    if let Some(of) = &names.impressions {
        reader.impressions(dir, of)?;
    }
    if let Some(of) = &names.actions {
        reader.actions(dir, of)?;
    }
    if let Some(of) = &names.items {
        reader.entities(dir, of, true)?;
    }
    if let Some(of) = &names.users {
        reader.entities(dir, of, false)?;
    }
    reader.report.check(max_bad)?;
    Ok(reader.finish())
}

impl Tables {
    /// What was read.
    pub fn report(&self) -> &ImportReport {
        &self.report
    }

    /// Hands all events to `sink`.
    pub fn emit(self, sink: &mut Sink<'_>) -> Result<ImportReport, ImportError> {
        let mut out = Emitter::new(self.report, sink);
        for event in self.events {
            out.push(event)?;
        }
        out.finish()
    }
}

struct Reader<'a> {
    schema: &'a Schema,
    now_ms: i64,
    report: ImportReport,
    /// Position of a request's impression in `shown`.
    requests: HashMap<RequestId, usize>,
    shown: Vec<Impression>,
    actions: Vec<Action>,
    /// Items and users; `None` is "from the start".
    entities: Vec<(Option<i64>, Event)>,
    /// Hashes of the good rows with their table, to know exact repeats.
    seen: HashSet<u64>,
}

impl<'a> Reader<'a> {
    fn new(schema: &'a Schema, now_ms: i64) -> Self {
        Self {
            schema,
            now_ms,
            report: ImportReport::default(),
            requests: HashMap::new(),
            shown: Vec::new(),
            actions: Vec::new(),
            entities: Vec::new(),
            seen: HashSet::new(),
        }
    }

    /// Reads a file; a row that `take` refuses is bad, one that repeats another exactly is dropped.
    fn rows(
        &mut self,
        path: &Path,
        table: u8,
        columns: &[&str],
        mut take: impl FnMut(&mut Self, u64, &Row) -> Result<(), String>,
    ) -> Result<(), ImportError> {
        let name = file_name(path);
        rows::read(path, columns, &mut |line, row| {
            self.report.rows += 1;
            let taken = row.and_then(|row| {
                let mut hasher = DefaultHasher::new();
                (table, &row).hash(&mut hasher);
                if self.seen.contains(&hasher.finish()) {
                    self.report.duplicates += 1;
                    return Ok(());
                }
                take(self, line, &row)?;
                self.seen.insert(hasher.finish());
                Ok(())
            });
            if let Err(reason) = taken {
                self.report.bad(&name, line, reason);
            }
        })
    }

    fn impressions(&mut self, dir: &Path, of: &Impressions) -> Result<(), ImportError> {
        let mut columns = vec![of.user.as_str(), &of.item, &of.time];
        let places = Places::of(&mut columns, [&of.surface, &of.request, &of.position]);
        let flags = columns.len();
        columns.extend(of.flags.keys().map(String::as_str));
        self.rows(&dir.join(&of.file), 0, &columns.clone(), |reader, line, row| {
            let (user, item) = (id(row, 0, &of.user, UserId::new)?, id(row, 1, &of.item, ItemId::new)?);
            let time_ms = of.time_unit.parse(text(row, 2, &of.time)?)?;
            let [surface, request, position] = places.texts(row);
            let request = match request {
                Some(text) => RequestId::new(text).map_err(|e| e.to_string())?,
                None if of.request.is_some() => return Err("the request is missing".to_owned()),
                None => RequestId::new(format!("r{line}")).map_err(|e| e.to_string())?,
            };
            let position =
                position.map(|p| p.parse().map_err(|_| format!("position is `{}`", cut(p)))).transpose()?;
            let mut done: Vec<&str> = of.always.iter().map(String::as_str).collect();
            for (i, (column, action)) in of.flags.iter().enumerate() {
                if truth(column, row[flags + i].as_ref())? {
                    done.push(action);
                }
            }
            let surface = surface.map(str::to_owned);
            let actions: Vec<Action> = done
                .into_iter()
                .map(|name| reader.flagged(name, line, &user, &item, time_ms, &request, &surface))
                .collect::<Result<_, _>>()?;
            reader.show(request, user, item, time_ms, surface, position)?;
            reader.actions.extend(actions);
            Ok(())
        })
    }

    fn flagged(
        &self,
        name: &str,
        line: u64,
        user: &UserId,
        item: &ItemId,
        time_ms: i64,
        request: &RequestId,
        surface: &Option<String>,
    ) -> Result<Action, String> {
        let event_id = EventId::new(format!("r{line}:{name}")).map_err(|e| e.to_string())?;
        let (user, item, request) = (user.clone(), item.clone(), Some(request.clone()));
        let action = Action {
            event_id,
            user,
            item,
            action: name.to_owned(),
            time_ms,
            request,
            surface: surface.clone(),
        };
        self.valid(Event::Action(action.clone()))?;
        Ok(action)
    }

    /// Adds a shown item to its request.
    fn show(
        &mut self,
        request: RequestId,
        user: UserId,
        item: ItemId,
        time_ms: i64,
        surface: Option<String>,
        position: Option<u16>,
    ) -> Result<(), String> {
        let at = self.requests.get(&request).copied();
        let known = at.map(|at| &self.shown[at]);
        if known.is_some_and(|k| k.user != user) {
            return Err(format!("request `{request}` is another user's: requests are unique"));
        }
        if known.is_some_and(|k| k.items.iter().any(|i| i.item == item)) {
            return Err(format!("request `{request}` shows `{item}` twice"));
        }
        let next = known.map_or(0, |k| k.items.len()).min(usize::from(u16::MAX)) as u16;
        let shown = ImpressionItem::unscored(item, position.unwrap_or(next));
        let first = || Impression::outside(request.clone(), user, surface, time_ms, Vec::new());
        let mut impression = known.cloned().unwrap_or_else(first);
        impression.time_ms = impression.time_ms.min(time_ms);
        impression.items.push(shown);
        self.valid(Event::Impression(impression.clone()))?;
        match at {
            Some(at) => self.shown[at] = impression,
            None => {
                self.requests.insert(request, self.shown.len());
                self.shown.push(impression);
            }
        }
        self.report.impressions += 1;
        Ok(())
    }

    fn actions(&mut self, dir: &Path, of: &Actions) -> Result<(), ImportError> {
        let mut columns = vec![of.user.as_str(), &of.item, &of.time, &of.action];
        let places = Places::of(&mut columns, [&of.surface, &of.request, &of.id]);
        self.rows(&dir.join(&of.file), 1, &columns.clone(), |reader, line, row| {
            let name = text(row, 3, &of.action)?;
            let [surface, request, event] = places.texts(row);
            let event_id = event.map_or_else(|| EventId::new(format!("a{line}")), EventId::new);
            let action = Action {
                event_id: event_id.map_err(|e| e.to_string())?,
                user: id(row, 0, &of.user, UserId::new)?,
                item: id(row, 1, &of.item, ItemId::new)?,
                action: of.names.get(name).map_or(name, String::as_str).to_owned(),
                time_ms: of.time_unit.parse(text(row, 2, &of.time)?)?,
                request: request.map(RequestId::new).transpose().map_err(|e| e.to_string())?,
                surface: surface.map(str::to_owned),
            };
            reader.valid(Event::Action(action.clone()))?;
            reader.actions.push(action);
            Ok(())
        })
    }

    fn entities(&mut self, dir: &Path, of: &Entities, items: bool) -> Result<(), ImportError> {
        let mut columns = vec![of.id.as_str()];
        let places = Places::of(&mut columns, [&of.time]);
        let first = columns.len();
        columns.extend(of.features.values().map(String::as_str));
        let kinds = if items { &self.schema.item_features } else { &self.schema.user_features };
        self.rows(&dir.join(&of.file), 2 + u8::from(items), &columns.clone(), |reader, _, row| {
            let [time] = places.texts(row);
            let time = time.map(|t| of.time_unit.parse(t)).transpose()?;
            let mut features = FeatureValues::new();
            for (i, name) in of.features.keys().enumerate() {
                let kind = kinds.iter().find(|k| k.name() == name);
                if let (Some(kind), Some(cell)) = (kind, &row[first + i]) {
                    features.insert(name.clone(), value(kind, cell, of.separator)?);
                }
            }
            let time_ms = time.unwrap_or(MIN_TIME_MS);
            let event = if items {
                let item = id(row, 0, &of.id, ItemId::new)?;
                Event::Item(Item { item, time_ms, features, active: true })
            } else {
                Event::User(User { user: id(row, 0, &of.id, UserId::new)?, time_ms, features })
            };
            reader.entities.push((time, reader.valid(event)?));
            if items {
                reader.report.items += 1;
            } else {
                reader.report.users += 1;
            }
            Ok(())
        })
    }

    fn valid(&self, event: Event) -> Result<Event, String> {
        event.validate(self.schema, self.now_ms).map_err(|e| e.to_string())?;
        Ok(event)
    }

    /// Joins actions to impressions and brings all in order.
    fn finish(mut self) -> Tables {
        self.join();
        let timed = self.shown.iter().map(|s| s.time_ms).chain(self.actions.iter().map(|a| a.time_ms));
        let start = timed.chain(self.entities.iter().filter_map(|(t, _)| *t)).min().unwrap_or(MIN_TIME_MS);
        let mut keyed: Vec<(i64, u8, Event)> = Vec::new();
        for (time, mut event) in self.entities {
            if let Event::Item(Item { time_ms, .. }) | Event::User(User { time_ms, .. }) = &mut event {
                *time_ms = time.unwrap_or(start);
            }
            keyed.push((time.unwrap_or(i64::MIN), 0, event));
        }
        for mut impression in self.shown {
            impression.items.sort_by_key(|i| i.position);
            keyed.push((impression.time_ms, 1, Event::Impression(impression)));
        }
        keyed.extend(self.actions.into_iter().map(|a| (a.time_ms, 2, Event::Action(a))));
        keyed.sort_by_key(|(time, kind, _)| (*time, *kind));
        Tables { events: keyed.into_iter().map(|(_, _, event)| event).collect(), report: self.report }
    }

    /// Gives actions without a request the latest impression of their user and item within the attribution window.
    fn join(&mut self) {
        let mut shown: HashMap<(&UserId, &ItemId), Vec<(i64, &RequestId)>> = HashMap::new();
        for impression in &self.shown {
            for item in &impression.items {
                let times = shown.entry((&impression.user, &item.item)).or_default();
                times.push((impression.time_ms, &impression.request));
            }
        }
        for times in shown.values_mut() {
            times.sort();
        }
        for action in self.actions.iter_mut().filter(|a| a.request.is_none()) {
            let Some(times) = shown.get(&(&action.user, &action.item)) else { continue };
            let of = self.schema.actions.iter().find(|a| a.name == action.action);
            let window = of.map_or(0, |a| i64::from(a.attribution_seconds) * 1000);
            let before = times.partition_point(|(time, _)| *time <= action.time_ms);
            if let Some((time, request)) = before.checked_sub(1).map(|at| times[at])
                && action.time_ms - time <= window
            {
                action.request = Some(request.clone());
            }
        }
    }
}

/// Where the optional columns stand in a row.
struct Places<const N: usize>([Option<usize>; N]);

impl<const N: usize> Places<N> {
    /// Puts those that are given after `columns`.
    fn of<'c>(columns: &mut Vec<&'c str>, names: [&'c Option<String>; N]) -> Self {
        Self(names.map(|name| {
            name.as_deref().map(|name| {
                columns.push(name);
                columns.len() - 1
            })
        }))
    }

    fn texts<'r>(&self, row: &'r Row) -> [Option<&'r str>; N] {
        self.0.map(|at| match at.and_then(|at| row[at].as_ref()) {
            Some(Cell::Text(text)) => Some(text.as_str()),
            _ => None,
        })
    }
}

fn text<'r>(row: &'r Row, at: usize, column: &str) -> Result<&'r str, String> {
    match &row[at] {
        Some(Cell::Text(text)) => Ok(text),
        Some(Cell::List(_)) => Err(format!("{column} is a list: expected one value")),
        None => Err(format!("{column} is missing")),
    }
}

fn id<T>(
    row: &Row,
    at: usize,
    column: &str,
    new: impl Fn(String) -> Result<T, lately_features::IdError>,
) -> Result<T, String> {
    new(text(row, at, column)?.to_owned()).map_err(|e| format!("{column}: {e}"))
}

fn truth(column: &str, cell: Option<&Cell>) -> Result<bool, String> {
    match cell {
        None => Ok(false),
        Some(Cell::Text(text)) => match text.as_str() {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            other => Err(format!("{column} is `{}`: expected 0, 1, true or false", cut(other))),
        },
        Some(Cell::List(_)) => Err(format!("{column} is a list: expected 0, 1, true or false")),
    }
}

fn value(kind: &FeatureKind, cell: &Cell, separator: char) -> Result<FeatureValue, String> {
    let several = |trim: &[char]| -> Vec<String> {
        match cell {
            Cell::List(list) => list.clone(),
            Cell::Text(text) => {
                let parts = text.trim_matches(trim).split(separator).map(str::trim);
                parts.filter(|p| !p.is_empty()).map(str::to_owned).collect()
            }
        }
    };
    match (kind, cell) {
        (FeatureKind::Categorical { max_values: 1, .. }, Cell::Text(text)) => {
            Ok(FeatureValue::Text(text.clone()))
        }
        (FeatureKind::Categorical { .. }, _) => Ok(FeatureValue::Texts(several(&[]))),
        (FeatureKind::Numeric { name, .. }, Cell::Text(text)) => {
            let number = text.parse().map_err(|_| format!("{name} is `{}`: not a number", cut(text)))?;
            Ok(FeatureValue::Number(number))
        }
        (FeatureKind::Numeric { name, .. }, Cell::List(_)) => {
            Err(format!("{name} is a list: expected a number"))
        }
        (FeatureKind::Embedding { name, .. }, _) => {
            let number =
                |t: String| t.parse().map_err(|_| format!("{name} holds `{}`: not a number", cut(&t)));
            Ok(FeatureValue::Vector(several(&['[', ']']).into_iter().map(number).collect::<Result<_, _>>()?))
        }
    }
}

#[cfg(test)]
mod tests;
