//! All that the ranking model sees, pure: no IO, no clock, no async.
//!
//! Read in this order: [`schema`] (what a project declares), [`event`] (what comes in), [`sequence`] (a person's
//! latest actions), [`entity`] and [`vectors`] (items and users as the model sees them), [`mod@assemble`] (**the** function that
//! serving, replay and training share) and [`batch`] (the flat arrays that the model takes). [`codec`] gives the
//! bytes on disk.

pub mod assemble;
pub mod batch;
pub mod codec;
pub mod entity;
pub mod event;
pub mod id;
mod record;
pub mod schema;
pub mod sequence;
pub mod vectors;

pub use assemble::{Assembler, RequestContext, Token, action_bit, assemble, tokens};
pub use batch::FeatureBatch;
pub use entity::{EntityTable, Features};
pub use event::{Action, Event, EventError, FeatureValue, Impression, ImpressionItem, Item, User};
pub use id::{EventId, IdError, ItemId, RequestId, UserId};
pub use schema::{Schema, SchemaError};
pub use sequence::{SequenceEntry, UserSequence};
pub use vectors::{ItemVectors, VectorsError};
