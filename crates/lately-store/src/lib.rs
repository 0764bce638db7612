//! What survives a restart: the durable log, the user sequences and entities that follow from it, and the registry
//! of models.
//!
//! Read in this order: [`Store`] (what callers use), [`log`] (the promise of an acknowledgement and how it is kept),
//! `projector` (which keys one event writes), `sequence_cache` and `entities` (the views in memory), [`registry`],
//! [`objects`] (bytes under names: where what is larger or shared is kept).
//!
//! One embedded `fjall` database holds all of it, in seven keyspaces, so that one write batch makes a log record and
//! all that follows from it durable together:
//!
//! | keyspace  | key                                                     | value                                |
//! | ---       | ---                                                     | ---                                  |
//! | log       | offset (u64, big-endian)                                | [`Event`](lately_features::Event)    |
//! | sequences | user, 0x00, time descending, offset descending          | `SequenceEntry`                      |
//! | index     | user, 0x00, kind, XXH3-64 of the event or request id    | offset of the record                 |
//! | hidden    | user, 0x00, item                                        | offset of its first negative action  |
//! | items     | item                                                    | the item's newest log record         |
//! | users     | user                                                    | the user's newest log record         |
//! | meta      | a name                                                  | next offset; what the sequences mean |
//!
//! Values are written by [`lately_features::codec`]. Ids hold no control characters, so a 0x00 ends one
//! unambiguously and no user's keys are a prefix of another's.

mod engine;
mod entities;
mod error;
mod key;
mod limits;
pub mod log;
pub mod objects;
mod projector;
pub mod registry;
mod sequence_cache;
mod store;
mod vocabulary;

pub use error::StoreError;
pub use limits::StoreLimits;
pub use registry::{Registry, RegistryError, Version, VersionInfo};
pub use store::{Appended, Store, StoreStats};
