//! `lately size`: what a product of a given size needs.
//!
//! `speed` measures how fast a geometry is scored on this machine, `sample` serves one request of it and takes the
//! bytes of everything from the real encoders, and `need` multiplies.

pub(crate) mod need;
pub(crate) mod sample;
pub(crate) mod speed;
