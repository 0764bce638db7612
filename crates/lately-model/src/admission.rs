//! Which values of categorical features a model knows: those that training saw often enough. The rest are missing.
//!
//! The row of a rare value, of an id above all, learns the few outcomes that it was there for by heart. Where the
//! schema gives a feature a `min_count`, its buckets below that count are taken for bucket 0, in training and, as the
//! admitted ones stand in the checkpoint, in serving alike.

use std::borrow::Cow;

use lately_features::FeatureBatch;
use lately_features::batch::{CategoricalSlots, Columns, Layout};
use lately_features::schema::{FeatureKind, Schema};

use crate::ModelError;

/// The admitted buckets of every feature that has a `min_count`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Admission {
    gates: Vec<Gate>,
}

/// One feature.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gate {
    /// `user.` or `item.` and the feature's name.
    pub(crate) name: String,
    /// Bit b % 8 of byte b / 8: whether bucket b is admitted.
    pub(crate) bits: Vec<u8>,
    user: bool,
    slots: CategoricalSlots,
    /// Categorical slots a row.
    width: usize,
    min_count: u32,
}

impl Gate {
    /// All gates of a schema, open to every bucket.
    fn all(schema: &Schema) -> Vec<Self> {
        let side = |user: bool, prefix: &str, kinds: &[FeatureKind]| {
            let layout = Layout::of(kinds);
            let counts = kinds.iter().filter_map(|kind| match kind {
                FeatureKind::Categorical { min_count, .. } => Some(*min_count),
                _ => None,
            });
            let gate = |(slots, min_count): (&CategoricalSlots, u32)| Self {
                name: format!("{prefix}.{}", slots.name),
                bits: vec![0xff; slots.buckets.div_ceil(8)],
                user,
                slots: slots.clone(),
                width: layout.categorical_width,
                min_count,
            };
            let gated = layout.categorical.iter().zip(counts).filter(|(_, min_count)| *min_count > 1);
            gated.map(gate).collect::<Vec<_>>()
        };
        let mut gates = side(true, "user", &schema.user_features);
        gates.extend(side(false, "item", &schema.item_features));
        gates
    }

    /// A bucket that the table does not have is let through, so that the batch's check names it.
    fn admits(&self, bucket: u32) -> bool {
        self.bits.get(bucket as usize / 8).is_none_or(|byte| byte >> (bucket % 8) & 1 == 1)
    }

    fn columns<'a>(&self, batch: &'a FeatureBatch) -> &'a Columns {
        if self.user { &batch.user } else { &batch.item }
    }

    /// The buckets of the feature, row after row.
    fn buckets<'a>(&'a self, batch: &'a FeatureBatch) -> impl Iterator<Item = &'a [u32]> {
        let rows = self.columns(batch).categorical.chunks_exact(self.width);
        rows.map(|row| &row[self.slots.start..self.slots.start + self.slots.slots])
    }

    fn close(&self, batch: &mut FeatureBatch) {
        let columns = if self.user { &mut batch.user } else { &mut batch.item };
        for row in columns.categorical.chunks_exact_mut(self.width) {
            let slots = &mut row[self.slots.start..self.slots.start + self.slots.slots];
            slots.iter_mut().filter(|b| !self.admits(**b)).for_each(|b| *b = 0);
        }
    }
}

impl Admission {
    /// Lets all values of all features through.
    pub fn open(schema: &Schema) -> Self {
        Self { gates: Gate::all(schema) }
    }

    /// Puts the bits of every gate in place, as `bits` gives them by name.
    pub(crate) fn read<E>(
        schema: &Schema,
        mut bits: impl FnMut(&str, usize) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let mut admission = Self::open(schema);
        for gate in &mut admission.gates {
            gate.bits = bits(&gate.name, gate.bits.len())?;
        }
        Ok(admission)
    }

    pub(crate) fn gates(&self) -> &[Gate] {
        &self.gates
    }

    /// Whether no feature has a `min_count`.
    pub fn is_empty(&self) -> bool {
        self.gates.is_empty()
    }

    /// Features with their admitted buckets and all buckets, bucket 0 left aside: to tell how it went.
    pub fn counts(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.gates.iter().map(|gate| {
            let admitted = (1..gate.slots.buckets as u32).filter(|b| gate.admits(*b)).count();
            (gate.name.as_str(), admitted, gate.slots.buckets - 1)
        })
    }

    /// Refuses gates of another schema.
    pub(crate) fn validate(&self, schema: &Schema) -> Result<(), ModelError> {
        let same = |(a, b): (&Gate, &Gate)| a.name == b.name && a.bits.len() == b.bits.len();
        let open = Gate::all(schema);
        if open.len() == self.gates.len() && open.iter().zip(&self.gates).all(same) {
            return Ok(());
        }
        Err(ModelError::Length { what: "admission", want: open.len(), got: self.gates.len() })
    }

    /// The batch with what is not admitted as missing; the very batch where there is no gate.
    pub(crate) fn apply<'a>(&self, batch: &'a FeatureBatch) -> Cow<'a, FeatureBatch> {
        let mut batch = Cow::Borrowed(batch);
        for gate in &self.gates {
            gate.close(batch.to_mut());
        }
        batch
    }
}

/// Counts what training rows hold, one pass: values of users once a request, of items once a row.
#[derive(Debug, Clone)]
pub struct AdmissionFit {
    gates: Vec<(Gate, Vec<u32>)>,
}

impl AdmissionFit {
    /// For batches of this schema.
    pub fn new(schema: &Schema) -> Self {
        let counted = |gate: Gate| {
            let counts = vec![0; gate.slots.buckets];
            (gate, counts)
        };
        Self { gates: Gate::all(schema).into_iter().map(counted).collect() }
    }

    /// Whether there is nothing to count.
    pub fn is_empty(&self) -> bool {
        self.gates.is_empty()
    }

    /// Takes in one batch.
    pub fn add(&mut self, batch: &FeatureBatch) {
        for (gate, counts) in &mut self.gates {
            for bucket in gate.buckets(batch).flatten() {
                if let Some(count) = counts.get_mut(*bucket as usize) {
                    *count = count.saturating_add(1);
                }
            }
        }
    }

    /// Admits what was there often enough.
    pub fn finish(self) -> Admission {
        let close = |(mut gate, counts): (Gate, Vec<u32>)| {
            gate.bits.fill(0);
            for (bucket, count) in counts.into_iter().enumerate() {
                if bucket == 0 || count >= gate.min_count {
                    gate.bits[bucket / 8] |= 1 << (bucket % 8);
                }
            }
            gate
        };
        Admission { gates: self.gates.into_iter().map(close).collect() }
    }
}
