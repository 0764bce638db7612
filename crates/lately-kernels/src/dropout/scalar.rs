//! Reference of [`super::apply`].

use super::Dropout;
use crate::Real;

/// See [`super::apply`].
pub fn apply<R: Real>(dropout: Dropout, start: u32, x: &mut [R]) {
    if dropout.is_off() {
        return;
    }
    for (i, x) in x.iter_mut().enumerate() {
        *x *= dropout.factor(start.wrapping_add(i as u32));
    }
}
