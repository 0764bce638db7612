//! Everything of the binary, as a library for its end-to-end tests: the command line ([`commands`]), configuration
//! ([`config`]), the composition ([`wire_up`]), devices ([`device`]), learning from a log ([`log_source`], [`embeddings`],
//! [`learn`], [`retrain`]), comparing configurations ([`ablate`]), the
//! watch over drift and skew ([`watch`], [`doctor`]), load tests ([`load`]) and sizing ([`size`]), importers
//! ([`import`]), the synthetic world ([`world`]), the demo ([`demo`]) and weeks of a synthetic product ([`simulate`]).

pub mod ablate;
pub mod commands;
pub mod config;
pub mod data_dir;
pub mod demo;
pub mod device;
pub mod doctor;
pub mod embeddings;
pub mod experiments;
mod follow;
pub mod import;
pub mod interrupt;
pub mod learn;
pub mod load;
pub mod log_source;
mod replayed;
pub mod retrain;
mod rollout;
pub mod simulate;
pub mod size;
mod slots;
pub mod watch;
pub mod wire_up;
pub mod world;
