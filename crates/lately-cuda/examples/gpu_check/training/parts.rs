//! What a step's time on the card goes to, from the card's events.

use std::collections::BTreeMap;

use lately_cuda::Span;
use serde::{Deserialize, Serialize};

/// Times of a step on the card, ms. Between them the card waited for the host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parts {
    pub(crate) copy_in_ms: f64,
    pub(crate) forward_ms: f64,
    pub(crate) backward_ms: f64,
    pub(crate) optimiser_ms: f64,
    pub(crate) copy_out_ms: f64,
    /// The longest first.
    pub(crate) kernels: Vec<KernelTime>,
}

/// A kernel's launches in a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct KernelTime {
    pub(crate) name: String,
    pub(crate) ms: f64,
    pub(crate) launches: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Pass {
    Forward,
    Backward,
    /// The norm, and the step.
    Optimiser,
}

impl Parts {
    /// Of so many steps, whose spans lie in order. A stretch is copied in and goes forward; its logits are copied out and
    /// their gradient in, or a kernel whose name says so begins the backward.
    pub(crate) fn of(spans: &[Span], steps: usize) -> Self {
        let steps = steps.max(1) as f64;
        let mut parts = Self::default();
        let mut kernels: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
        let (mut pass, mut out) = (Pass::Forward, false);
        for Span { what, milliseconds } in spans {
            let ms = milliseconds / steps;
            let copied_out = std::mem::replace(&mut out, *what == "copy out");
            match *what {
                "copy in" => {
                    let logits = copied_out && pass == Pass::Forward;
                    pass = if logits { Pass::Backward } else { Pass::Forward };
                    parts.copy_in_ms += ms;
                }
                "copy out" => parts.copy_out_ms += ms,
                kernel => {
                    let entry = kernels.entry(kernel).or_default();
                    *entry = (entry.0 + ms, entry.1 + 1);
                    if kernel.contains("gradient") || kernel.contains("backward") {
                        pass = Pass::Backward;
                    } else if kernel == "squares" || kernel == "adam" {
                        pass = Pass::Optimiser;
                    }
                    match pass {
                        Pass::Forward => parts.forward_ms += ms,
                        Pass::Backward => parts.backward_ms += ms,
                        Pass::Optimiser => parts.optimiser_ms += ms,
                    }
                }
            }
        }
        let named = |(name, (ms, count)): (&str, (f64, usize))| KernelTime {
            name: name.to_owned(),
            ms,
            launches: count as f64 / steps,
        };
        parts.kernels = kernels.into_iter().map(named).collect();
        parts.kernels.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_sorted_by_what_a_step_does_in_order() {
        let stretch = [
            ("copy in", 1.0),
            ("place", 2.0),
            ("linear_plain", 3.0),
            ("copy out", 0.5),
            ("copy in", 0.25),
            ("place", 4.0),
            ("weight_gradient", 5.0),
            ("clear_words", 6.0),
        ];
        let end = [("squares", 7.0), ("copy out", 0.5), ("adam", 8.0), ("clear_words", 9.0)];
        // Two stretches a step, two steps.
        let step = [&stretch[..], &stretch, &end].concat();
        let spans: Vec<Span> = [&step[..], &step]
            .concat()
            .into_iter()
            .map(|(what, milliseconds)| Span { what, milliseconds })
            .collect();
        let parts = Parts::of(&spans, 2);
        assert_eq!((parts.copy_in_ms, parts.copy_out_ms), (2.5, 1.5));
        assert_eq!((parts.forward_ms, parts.backward_ms, parts.optimiser_ms), (10.0, 30.0, 24.0));
        let first = KernelTime { name: "clear_words".to_owned(), ms: 21.0, launches: 3.0 };
        assert_eq!(parts.kernels[0], first);
        // Where the loss is made on the card nothing is copied between the passes.
        let spans = [
            ("copy in", 1.0),
            ("place", 2.0),
            ("weight_gradient", 3.0),
            ("adam", 1.0),
            ("copy in", 1.0),
            ("place", 2.0),
        ];
        let parts = Parts::of(&spans.map(|(what, milliseconds)| Span { what, milliseconds }), 1);
        assert_eq!((parts.forward_ms, parts.backward_ms, parts.optimiser_ms), (4.0, 3.0, 1.0));
        assert_eq!(Parts::of(&[], 0), Parts::default());
    }
}
