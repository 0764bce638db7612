//! `[rank.select]`: what a page may look like.

use serde::{Deserialize, Serialize};

use crate::error::RankConfigError;

/// How a page is kept from narrowing, by item embeddings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Diversity {
    /// Not: by score.
    #[default]
    None,
    /// Sliding spectrum decomposition (Huang et al., KDD 2021).
    Ssd,
    /// A determinantal point process, greedily (Chen, Zhang, Zhou, NeurIPS 2018).
    Dpp,
}

/// `[rank.select.ssd]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SsdConfig {
    /// What an item in an entirely new direction is worth, in standard deviations of the scores, 0 to 100. Default 1.
    pub gamma: f32,
    /// Places in a row that are to differ, 1 to 64. Default 8.
    pub window: usize,
}

impl Default for SsdConfig {
    fn default() -> Self {
        Self { gamma: 1.0, window: 8 }
    }
}

/// `[rank.select.dpp]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DppConfig {
    /// What a standard deviation of the scores is worth against the logarithm of the squared volume, 0 to 100. Larger:
    /// less diverse. Default 2.
    pub alpha: f32,
    /// Places in a row that are to differ, 1 to 64. Default 25.
    pub window: usize,
}

impl Default for DppConfig {
    fn default() -> Self {
        Self { alpha: 2.0, window: 25 }
    }
}

/// Whether a rule may be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpacingMode {
    /// Never: the page ends earlier.
    Hard,
    /// At a price that falls with distance.
    Soft,
}

/// One `[[rank.select.spacing]]`: items that share the first value of a categorical item feature keep their distance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpacingRule {
    /// Name of the item feature, such as `author`.
    pub feature: String,
    /// Hard or soft.
    pub mode: SpacingMode,
    /// Places in a row, 1 to 64.
    pub window: usize,
    /// Hard: most items of one value in the window. Default 1.
    #[serde(default = "one")]
    pub at_most: usize,
    /// Soft: what one item of the same value right before costs, in standard deviations of the scores; at the end of the
    /// window nothing. 0 to 100. Default 1.
    #[serde(default = "unit")]
    pub penalty: f32,
}

/// One `[[rank.select.caps]]`: at most so many items of one value of a categorical item feature on a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapRule {
    /// Name of the item feature.
    pub feature: String,
    /// Most items of one value, by its first value, on a page.
    pub at_most: usize,
}

/// One `[[rank.select.blocked]]`: a user feature lists values of an item feature whose items the user is not shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockRule {
    /// Name of the categorical user feature, such as `blocked_authors`.
    pub user: String,
    /// Name of the categorical item feature, with as many `buckets`.
    pub item: String,
}

fn one() -> usize {
    1
}

fn unit() -> f32 {
    1.0
}

/// Blending, spacing and what counts as just shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelectConfig {
    /// How a page is kept from narrowing, where spacing is asked for (a feed does). Default none.
    pub diversity: Diversity,
    /// Best candidates that blending chooses from, 1 to 2,000. Default 500.
    pub blend_candidates: usize,
    /// First places that are blended, 1 to 200; the others follow by score, within the hard rules. Default 50.
    pub blend_places: usize,
    /// Where `diversity` is ssd.
    pub ssd: SsdConfig,
    /// Where `diversity` is dpp.
    pub dpp: DppConfig,
    /// Distances by features; none by default.
    pub spacing: Vec<SpacingRule>,
    /// Caps by features; none by default.
    pub caps: Vec<CapRule>,
    /// What users may block; a feed and `hidden` leave it out. Nothing by default.
    pub blocked: Vec<BlockRule>,
    /// Most items of one topic in a row, where spacing is asked for (a feed does). 0: no spacing. Default 2.
    pub topic_run: usize,
    /// How many places further down an item of another topic is looked for. Default 50.
    pub spacing_window: usize,
    /// For how long a shown item counts as just shown, s. Default 1,800.
    pub shown_seconds: u32,
    /// On how many pages of that time an item may be before it counts as just shown. Default 1.
    pub shown_times: usize,
    /// Shown items remembered for a user. Default 200.
    pub shown_items: usize,
    /// Users whose shown items are remembered, in memory. Default 100,000.
    pub shown_users: usize,
}

impl Default for SelectConfig {
    fn default() -> Self {
        Self {
            diversity: Diversity::None,
            blend_candidates: 500,
            blend_places: 50,
            ssd: SsdConfig::default(),
            dpp: DppConfig::default(),
            spacing: Vec::new(),
            caps: Vec::new(),
            blocked: Vec::new(),
            topic_run: 2,
            spacing_window: 50,
            shown_seconds: 1_800,
            shown_times: 1,
            shown_items: 200,
            shown_users: 100_000,
        }
    }
}

impl SelectConfig {
    /// Checks the ranges of the numbers.
    pub(crate) fn check(&self) -> Result<(), RankConfigError> {
        whole("select.blend_candidates", self.blend_candidates, 2_000)?;
        whole("select.blend_places", self.blend_places, 200)?;
        whole("select.shown_times", self.shown_times, 1_000)?;
        whole("select.ssd.window", self.ssd.window, 64)?;
        whole("select.dpp.window", self.dpp.window, 64)?;
        factor("select.ssd.gamma", self.ssd.gamma)?;
        factor("select.dpp.alpha", self.dpp.alpha)?;
        for rule in &self.spacing {
            whole("select.spacing.window", rule.window, 64)?;
            whole("select.spacing.at_most", rule.at_most, 64)?;
            factor("select.spacing.penalty", rule.penalty)?;
        }
        self.caps.iter().try_for_each(|cap| whole("select.caps.at_most", cap.at_most, 2_000))
    }
}

fn whole(name: &'static str, value: usize, high: usize) -> Result<(), RankConfigError> {
    if (1..=high).contains(&value) {
        return Ok(());
    }
    Err(RankConfigError::Range { name, value, low: 1, high })
}

fn factor(name: &'static str, value: f32) -> Result<(), RankConfigError> {
    if (0.0..=100.0).contains(&value) {
        return Ok(());
    }
    Err(RankConfigError::Factor { name, value })
}
