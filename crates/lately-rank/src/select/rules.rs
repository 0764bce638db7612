//! Which candidate may take a place, and at what price: spacing, hard or soft, and caps a page, by labels.
//!
//! A label is the first value of a feature, as a bucket; 0 is none, which no rule touches.

use std::collections::HashMap;

use super::config::{SelectConfig, SpacingMode};

/// The rules over a page in the making. `labels` are rules x candidates: the spacing rules' first, then the caps'.
pub(super) struct Rules<'a> {
    config: &'a SelectConfig,
    labels: &'a [Vec<u32>],
    page: Vec<usize>,
    counts: Vec<HashMap<u32, usize>>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(config: &'a SelectConfig, labels: &'a [Vec<u32>]) -> Self {
        Self { config, labels, page: Vec::new(), counts: vec![HashMap::new(); config.caps.len()] }
    }

    pub(super) fn take(&mut self, at: usize) {
        self.page.push(at);
        for (counts, labels) in self.counts.iter_mut().zip(&self.labels[self.config.spacing.len()..]) {
            *counts.entry(labels[at]).or_default() += 1;
        }
    }

    /// Whether no cap and no hard rule forbids a candidate the next place.
    pub(super) fn allow(&self, at: usize) -> bool {
        let caps = self.config.caps.iter().zip(&self.labels[self.config.spacing.len()..]).zip(&self.counts);
        let capped =
            |((cap, labels), counts): ((&super::config::CapRule, &Vec<u32>), &HashMap<u32, usize>)| {
                labels[at] != 0 && counts.get(&labels[at]).is_some_and(|n| *n >= cap.at_most)
            };
        let spaced = |(rule, labels): (&super::config::SpacingRule, &Vec<u32>)| {
            rule.mode == SpacingMode::Soft || self.alike(labels, at, rule.window).count() < rule.at_most
        };
        !caps.into_iter().any(capped) && self.config.spacing.iter().zip(self.labels).all(spaced)
    }

    /// What the soft rules take off a candidate's worth in the next place.
    pub(super) fn price(&self, at: usize) -> f32 {
        let rules = self.config.spacing.iter().zip(self.labels).filter(|(r, _)| r.mode == SpacingMode::Soft);
        let fading = |back: usize, window: usize| 1.0 - back as f32 / window as f32;
        let one = |(rule, labels): (&super::config::SpacingRule, &Vec<u32>)| {
            let backs = self.alike(labels, at, rule.window + 1);
            backs.map(|back| rule.penalty * fading(back, rule.window)).sum::<f32>()
        };
        rules.map(one).sum()
    }

    /// How far back (from 0) items of the same label stand, where the next place and they fit into `window`.
    fn alike<'b>(
        &'b self,
        labels: &'b [u32],
        at: usize,
        window: usize,
    ) -> impl Iterator<Item = usize> + use<'b> {
        let same = move |other: usize| labels[at] != 0 && labels[other] == labels[at];
        let latest = self.page.iter().rev().take(window - 1).enumerate();
        latest.filter(move |(_, other)| same(**other)).map(|(back, _)| back)
    }
}
