//! What a profile looks at: every declared feature, and what the log is made of.

use lately_features::Features;
use lately_features::Schema;
use lately_features::schema::FeatureKind;

use crate::dataset::{Request, Slice};

/// Where a feature stands in [`Features`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Categorical {
        start: usize,
        slots: usize,
    },
    Numeric(usize),
    /// Its length is what is looked at: zeros are a missing vector.
    Embedding {
        start: usize,
        dim: usize,
    },
}

/// A column's values.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// Once a request.
    User(Place),
    /// Once a row.
    Item(Place),
    /// Once a token: its action type.
    Tokens,
    /// Once a request: its tokens; none count as missing.
    Length,
    /// Once a request.
    Surface,
    /// Once an action that followed in time.
    Labels,
}

/// One value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    /// NaN where it is missing.
    Number(f32),
    /// Buckets; 0 is none.
    Set(&'a [u32]),
}

/// All columns of a schema by name.
pub(super) fn all(schema: &Schema) -> Vec<(String, Source)> {
    let mut columns = vec![
        ("sequence.actions".to_owned(), Source::Tokens),
        ("sequence.length".to_owned(), Source::Length),
        ("request.surface".to_owned(), Source::Surface),
        ("label.actions".to_owned(), Source::Labels),
    ];
    let named = |prefix: &str, kinds: &[FeatureKind], source: fn(Place) -> Source| {
        let column =
            |(kind, place): (&FeatureKind, Place)| (format!("{prefix}.{}", kind.name()), source(place));
        kinds.iter().zip(places(kinds)).map(column).collect::<Vec<_>>()
    };
    columns.extend(named("user", &schema.user_features, Source::User));
    columns.extend(named("item", &schema.item_features, Source::Item));
    columns
}

fn places(kinds: &[FeatureKind]) -> Vec<Place> {
    let (mut categorical, mut numeric, mut embedding) = (0, 0, 0);
    let place = |kind: &FeatureKind| match kind {
        FeatureKind::Categorical { max_values, .. } => {
            let (start, slots) = (categorical, usize::from(*max_values));
            categorical += slots;
            Place::Categorical { start, slots }
        }
        FeatureKind::Numeric { .. } => {
            numeric += 1;
            Place::Numeric(numeric - 1)
        }
        FeatureKind::Embedding { dim, .. } => {
            let (start, dim) = (embedding, usize::from(*dim));
            embedding += dim;
            Place::Embedding { start, dim }
        }
    };
    kinds.iter().map(place).collect()
}

impl Place {
    fn value<'a>(&self, features: Option<&'a Features>) -> Value<'a> {
        match (self, features) {
            (Self::Categorical { .. }, None) => Value::Set(&[]),
            (Self::Categorical { start, slots }, Some(f)) => {
                Value::Set(&f.categorical[*start..start + slots])
            }
            (_, None) => Value::Number(f32::NAN),
            (Self::Numeric(at), Some(f)) => Value::Number(f.numeric[*at]),
            (Self::Embedding { start, dim }, Some(f)) => {
                let squares: f32 = f.embedding[*start..start + dim].iter().map(|x| x * x).sum();
                Value::Number(if squares > 0.0 { squares.sqrt() } else { f32::NAN })
            }
        }
    }
}

impl Source {
    /// Whether its values are numbers.
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Length | Self::User(Place::Numeric(_) | Place::Embedding { .. }))
            || matches!(self, Self::Item(Place::Numeric(_) | Place::Embedding { .. }))
    }

    /// How many buckets there are where each has a name; `None` where values are hashed.
    pub(super) fn names(&self, schema: &Schema) -> Option<u32> {
        match self {
            Self::Tokens | Self::Labels => Some(schema.actions.len() as u32),
            Self::Surface => Some(schema.surfaces.len() as u32),
            _ => None,
        }
    }

    /// The values of every `step`-th request, each with whose it is: the user's number, or the item's.
    pub(super) fn each(&self, slice: &Slice<'_>, step: usize, on: &mut dyn FnMut(u32, Value<'_>)) {
        slice.iter().step_by(step.max(1)).for_each(|request| self.of_request(request, on));
    }

    fn of_request(&self, r: &Request, on: &mut dyn FnMut(u32, Value<'_>)) {
        match self {
            Self::User(place) => on(r.user, place.value(r.features.as_deref())),
            Self::Item(place) => {
                r.candidates.iter().for_each(|c| on(c.item, place.value(c.features.as_deref())));
            }
            Self::Tokens => r.tokens.iter().for_each(|t| on(r.user, Value::Set(&[u32::from(t.action) + 1]))),
            Self::Length if r.tokens.is_empty() => on(r.user, Value::Number(f32::NAN)),
            Self::Length => on(r.user, Value::Number(r.tokens.len() as f32)),
            Self::Surface => on(r.user, Value::Set(&[r.surface.into()])),
            Self::Labels => {
                for observed in r.candidates.iter().map(|c| c.observed) {
                    let bits = (0..u64::BITS).filter(|bit| observed >> bit & 1 == 1);
                    bits.for_each(|bit| on(r.user, Value::Set(&[bit + 1])));
                }
            }
        }
    }
}
