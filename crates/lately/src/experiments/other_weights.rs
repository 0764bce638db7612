//! What other weights of the value model would have earned on the places that were shuffled by chance.
//!
//! Of each list whose first places were shuffled for a share of the requests (`[rank.explore]`), the other policy orders the
//! items of those places by its weights over the probabilities that were logged. A place where it would show what was shown
//! counts, by 1 / propensity. Only the order of these places is judged: an item that was not on them was never shown.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, bail};
use lately_experiment::{Evaluation, Logged, OffPolicySettings, Overlap, Predicted, off_policy};
use lately_features::{Event, Impression, ImpressionItem, Schema};
use lately_rank::{ValueModel, ValueModelConfig};
use lately_train::DateRange;
use serde::Serialize;

/// Shuffled places at most; about 200 bytes each with three actions, 1 GB.
const MAX_PLACES: usize = 5_000_000;

/// What is known of a shuffled place.
struct Place {
    user: u64,
    propensity: f64,
    /// Whether the other weights would show the same item here.
    same: bool,
    shown_ms: i64,
    /// For each action: what the model expects of what was shown, and of what the other weights show.
    expected: Vec<Option<Predicted>>,
    /// Whether each action came.
    came: Vec<bool>,
}

/// An action with how long it counts, and the head that predicts it alone.
struct Outcome {
    name: String,
    window_ms: i64,
    head: Option<usize>,
}

/// Reads a log in its order.
pub(crate) struct OtherWeights {
    values: ValueModel,
    outcomes: Vec<Outcome>,
    range: DateRange,
    lists: u64,
    places: Vec<Place>,
    /// By hash of the request and of the item the place.
    shown: HashMap<(u64, u64), u32>,
}

/// What the other weights would have earned.
#[derive(Debug, Serialize)]
pub(crate) struct Judged {
    /// Lists with shuffled places.
    pub(crate) lists: u64,
    /// By action what a shuffled place earns.
    pub(crate) actions: BTreeMap<String, Evaluation>,
    /// How much of the other order was shown: the same for all actions, but for what clipping took off.
    pub(crate) overlap: Overlap,
    /// What to know before believing a number.
    pub(crate) warnings: Vec<String>,
}

impl OtherWeights {
    /// Refuses weights that the value model refuses.
    pub(crate) fn new(schema: &Schema, weights: BTreeMap<String, f32>, range: DateRange) -> Result<Self> {
        let values = ValueModel::new(&ValueModelConfig { weights, ..ValueModelConfig::default() }, schema)?;
        let outcomes = schema.actions.iter().map(|action| Outcome {
            name: action.name.clone(),
            window_ms: i64::from(action.attribution_seconds) * 1000,
            head: schema.heads.iter().position(|h| h.actions == [action.name.as_str()]),
        });
        let outcomes = outcomes.collect();
        Ok(Self { values, outcomes, range, lists: 0, places: Vec::new(), shown: HashMap::new() })
    }

    /// The next event of the log.
    pub(crate) fn observe(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Impression(list) if self.range.contains(list.time_ms) => self.list(list)?,
            Event::Action(action) => {
                let Some(request) = &action.request else { return Ok(()) };
                let place = self.shown.get(&(request.hash64(), action.item.hash64()));
                let outcome = self.outcomes.iter().position(|o| o.name == action.action);
                if let (Some(place), Some(outcome)) = (place, outcome) {
                    let place = &mut self.places[*place as usize];
                    let after_ms = action.time_ms - place.shown_ms;
                    place.came[outcome] |= (0..=self.outcomes[outcome].window_ms).contains(&after_ms);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn list(&mut self, list: &Impression) -> Result<()> {
        // Where no model scored there is nothing to weigh otherwise.
        if list.propensities.len() != list.items.len() || list.items.iter().any(|i| i.heads.is_empty()) {
            return Ok(());
        }
        let by_chance = list.items.iter().zip(&list.propensities).filter(|(_, p)| **p < 1.0);
        let shuffled: Vec<(&ImpressionItem, f32)> = by_chance.map(|(item, p)| (item, *p)).collect();
        if shuffled.is_empty() {
            return Ok(());
        }
        if self.places.len() + shuffled.len() > MAX_PLACES {
            bail!("there are more than {MAX_PLACES} shuffled places: take fewer days, by --from and --to");
        }
        let mut other: Vec<&ImpressionItem> = shuffled.iter().map(|(item, _)| *item).collect();
        let score = |item: &ImpressionItem| self.values.score(&item.heads);
        // Of two that are worth the same the one that stood higher by the score that ranked.
        other.sort_by(|a, b| score(b).total_cmp(&score(a)).then(b.score.total_cmp(&a.score)));
        for ((item, propensity), instead) in shuffled.iter().zip(other) {
            let predicted = |outcome: &Outcome| {
                let of = |item: &ImpressionItem| item.heads.get(outcome.head?).map(|p| f64::from(*p));
                Some(Predicted { shown: of(item)?, expected: of(instead)? })
            };
            self.shown.insert((list.request.hash64(), item.item.hash64()), self.places.len() as u32);
            self.places.push(Place {
                user: list.user.hash64(),
                propensity: f64::from(*propensity),
                same: instead.item == item.item,
                shown_ms: list.time_ms,
                expected: self.outcomes.iter().map(predicted).collect(),
                came: vec![false; self.outcomes.len()],
            });
        }
        self.lists += 1;
        Ok(())
    }

    /// What a place would have earned, by action.
    ///
    /// # Errors
    /// Where no place was shuffled, or all were shown to one person.
    pub(crate) fn judge(&self, settings: &OffPolicySettings) -> Result<Judged> {
        if self.places.is_empty() {
            bail!(
                "no list of these days has places that were shuffled by chance, so no other order can be judged: set share \
                 under [rank.explore] in lately.toml (0.01 to 0.02), serve, and ask again when lists have been shown"
            );
        }
        let mut actions = BTreeMap::new();
        for (at, outcome) in self.outcomes.iter().enumerate() {
            let rows: Vec<Logged> = self.places.iter().map(|place| place.row(at)).collect();
            actions.insert(outcome.name.clone(), off_policy(&rows, settings)?);
        }
        let Some(overlap) = actions.values().next().map(|first| first.overlap) else {
            bail!("the schema has no action");
        };
        let warnings = warnings(&actions);
        Ok(Judged { lists: self.lists, actions, overlap, warnings })
    }
}

/// What is said of all actions once, the rest with its action.
fn warnings(actions: &BTreeMap<String, Evaluation>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for (action, evaluation) in actions {
        for warning in &evaluation.warnings {
            let everywhere = actions.values().all(|other| other.warnings.contains(warning));
            let text = if everywhere { warning.clone() } else { format!("{action}: {warning}") };
            if !all.contains(&text) {
                all.push(text);
            }
        }
    }
    all
}

impl Place {
    fn row(&self, outcome: usize) -> Logged {
        Logged {
            user: self.user,
            propensity: self.propensity,
            target: f64::from(u8::from(self.same)),
            reward: f64::from(u8::from(self.came[outcome])),
            model: self.expected[outcome],
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;
    use lately_features::{Action, EventId, ItemId, RequestId, UserId};

    use super::*;
    use crate::world::schema;

    fn shown(list: usize, order: [usize; 2], propensities: Vec<f32>) -> Result<Event> {
        let (request, user) = (RequestId::new(format!("r{list}"))?, UserId::new(format!("u{}", list / 2))?);
        let items = order.iter().enumerate().map(|(place, item)| {
            let save = [0.9, 0.1][*item];
            let id = ItemId::new(format!("i{item}"))?;
            Ok(ImpressionItem { item: id, position: place as u16, heads: vec![0.5, save, 0.0], score: save })
        });
        let list = Impression::outside(request, user, None, 1_000, items.collect::<Result<_>>()?);
        Ok(Event::Impression(Impression { propensities, ..list }))
    }

    fn saved(list: usize, item: usize, time_ms: i64) -> Result<Event> {
        Ok(Event::Action(Action {
            event_id: EventId::new(format!("{list}-{item}"))?,
            user: UserId::new(format!("u{}", list / 2))?,
            item: ItemId::new(format!("i{item}"))?,
            action: "save".to_owned(),
            time_ms,
            request: Some(RequestId::new(format!("r{list}"))?),
            surface: None,
        }))
    }

    /// Two items in either order, half of the lists each; whoever sees the first item first saves it.
    fn judged(weight: f32) -> Result<Judged> {
        let weights = [("save".to_owned(), weight)].into();
        let mut other = OtherWeights::new(&schema()?, weights, DateRange::ALL)?;
        for list in 0..400 {
            let order = [[0, 1], [1, 0]][list % 2];
            other.observe(&shown(list, order, vec![0.5, 0.5])?)?;
            if order[0] == 0 {
                other.observe(&saved(list, 0, 2_000)?)?;
            }
        }
        // Later than it counts, of another list's item, and of a list that was certain.
        other.observe(&saved(1, 0, i64::MAX / 2)?)?;
        other.observe(&saved(3, 7, 2_000)?)?;
        other.observe(&shown(900, [0, 1], Vec::new())?)?;
        other.observe(&shown(901, [0, 1], vec![1.0, 1.0])?)?;
        other.judge(&OffPolicySettings::default())
    }

    #[test]
    fn an_order_earns_what_its_places_earned_where_they_were_shown() -> Result<()> {
        let (best, worst) = (judged(1.0)?, judged(-1.0)?);
        ensure!(best.lists == 400 && best.overlap.rows == 800 && best.overlap.users == 200);
        for (judged, expected) in [(&best, 0.5), (&worst, 0.0)] {
            let save = &judged.actions["save"];
            let snips = save.snips.map_or(f64::NAN, |v| v.value);
            ensure!((save.logged.value - 0.25).abs() < 1e-12, "{save:?}");
            ensure!(
                (save.ips.value - expected).abs() < 1e-12 && (snips - expected).abs() < 1e-12,
                "{save:?}"
            );
            ensure!(save.doubly_robust.is_some(), "the head `save` predicts `save` alone");
        }
        ensure!(best.actions["seen"].doubly_robust.is_none(), "no head predicts it");
        Ok(())
    }

    #[test]
    fn nothing_to_judge_says_what_to_do() -> Result<()> {
        let mut none = OtherWeights::new(&schema()?, [("save".to_owned(), 1.0)].into(), DateRange::ALL)?;
        none.observe(&shown(1, [0, 1], Vec::new())?)?;
        let refused = none.judge(&OffPolicySettings::default()).unwrap_err().to_string();
        ensure!(refused.contains("set share under [rank.explore]"), "{refused}");
        let unknown = [("saved".to_owned(), 1.0)].into();
        let refused = OtherWeights::new(&schema()?, unknown, DateRange::ALL).err();
        ensure!(refused.is_some_and(|e| e.to_string().contains("the schema has click, save, hide")));
        Ok(())
    }
}
