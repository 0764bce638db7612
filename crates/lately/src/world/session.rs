//! One visit: what a person wants now, and what they do with what they see.

use std::collections::VecDeque;

use lately_features::{ItemId, UserId};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::catalogue::Thing;
use super::drift::Mood;
use super::population::Person;
use super::{World, WorldError, draw, stream};

/// How long a want lasts, ms: two visits within it start from the same want.
const PHASE_MS: i64 = 30 * 60 * 1000;
/// Usual chance that a want lies outside the lasting tastes.
pub(super) const STRAY: f64 = 0.6;
/// How far an action moves the want to the item's topic.
const PULL: f64 = 0.2;
/// Chance, at each page, that the want moves on by itself.
const MOVE_ON: f64 = 0.04;
/// Shown items that a person remembers when tiring of a topic.
const MEMORY: usize = 10;
/// Chance to look at the next item of a list.
const SCROLL: f64 = 0.97;
/// Chance to ask for another page after one.
const STAY: f64 = 0.75;

/// What one person does with one shown item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The item.
    pub item: ItemId,
    /// `seen`, `click`, `save` or `hide`.
    pub action: &'static str,
    /// How long after the page was shown, ms.
    pub delay_ms: i64,
}

/// The true probabilities for one item, if it is looked at now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chances {
    /// That it is clicked.
    pub click: f64,
    /// That it is saved; only what was clicked is.
    pub save: f64,
    /// That it is hidden; then it is neither clicked nor saved.
    pub hide: f64,
}

/// One visit of one person.
#[derive(Debug)]
pub struct Session<'w> {
    world: &'w World,
    person: &'w Person,
    mood: Mood,
    /// What is wanted now, by topic; sums to 1.
    want: Vec<f64>,
    /// Topics of the latest items looked at, oldest first.
    recent: VecDeque<usize>,
    /// What each topic has lost over the last days, logits; empty: nothing.
    weary: Vec<f64>,
    /// Items looked at so far, by topic.
    looked: Vec<u32>,
    /// Pages, and what came of them: clicks, saves, hides.
    done: [u32; 4],
    rng: ChaCha8Rng,
}

impl<'w> Session<'w> {
    pub(super) fn open(world: &'w World, person: &'w Person, time_ms: i64, weary: Vec<f64>) -> Self {
        let seed = world.config.seed;
        let phase = time_ms.div_euclid(PHASE_MS) as u64;
        let mood = world.mood(person, time_ms);
        let want = fresh_want(&mood, person.stray, &mut stream(seed, 3 + person.number, phase));
        let rng = stream(seed ^ 0x5e55_1011, 3 + person.number, time_ms as u64);
        let recent = VecDeque::with_capacity(MEMORY + 1);
        let looked = vec![0; world.config.topics];
        Self { world, person, mood, want, recent, weary, looked, done: [0; 4], rng }
    }

    /// Whose visit it is.
    pub fn user(&self) -> &UserId {
        &self.person.id
    }

    /// The true probabilities of an item at this moment; an oracle for tests and for the demo's summary.
    pub fn chances(&self, item: &ItemId) -> Result<Chances, WorldError> {
        Ok(self.chances_of(self.world.thing(item)?))
    }

    /// Looks through a page, in order, until tired of scrolling. The want and the memory of topics move with it.
    pub fn react(&mut self, items: &[ItemId]) -> Result<Vec<Outcome>, WorldError> {
        let things = items.iter().map(|i| self.world.thing(i)).collect::<Result<Vec<_>, _>>()?;
        let mut out = Vec::new();
        let mut clock = 0;
        self.done[0] += 1;
        for thing in things {
            clock += self.rng.random_range(300..1_500);
            self.look(thing, &mut clock, &mut out);
            if !self.rng.random_bool(SCROLL) {
                break;
            }
        }
        if self.rng.random_bool(MOVE_ON) {
            self.want = fresh_want(&self.mood, self.person.stray, &mut self.rng);
        }
        Ok(out)
    }

    /// Items looked at so far, by topic.
    pub(super) fn looked(&self) -> &[u32] {
        &self.looked
    }

    /// What a page was worth on average: a save 1, a click 0.3, a hide -2.
    pub(super) fn pleasure(&self) -> f64 {
        let [pages, clicks, saves, hides] = self.done.map(f64::from);
        (saves + 0.3 * clicks - 2.0 * hides) / pages.max(1.0)
    }

    /// Whether another page is asked for.
    pub fn wants_more(&mut self) -> bool {
        self.rng.random_bool(STAY)
    }

    fn look(&mut self, thing: &Thing, clock: &mut i64, out: &mut Vec<Outcome>) {
        let Chances { click, save, hide } = self.chances_of(thing);
        let mut push = |action, delay_ms| out.push(Outcome { item: thing.id.clone(), action, delay_ms });
        push("seen", *clock);
        self.looked[thing.topic] += 1;
        self.recent.push_back(thing.topic);
        if self.recent.len() > MEMORY {
            self.recent.pop_front();
        }
        if self.rng.random_bool(hide) {
            *clock += self.rng.random_range(500..1_500);
            push("hide", *clock);
            self.done[3] += 1;
            self.want[thing.topic] *= 0.3;
        } else if self.rng.random_bool((click / (1.0 - hide)).min(1.0)) {
            *clock += self.rng.random_range(500..2_000);
            push("click", *clock);
            self.done[1] += 1;
            let saved = self.rng.random_bool((save / click).min(1.0));
            *clock += self.rng.random_range(2_000..20_000);
            if saved {
                push("save", *clock);
                self.done[2] += 1;
            }
            self.pull(thing.topic, if saved { 2.0 * PULL } else { PULL });
        }
    }

    fn pull(&mut self, topic: usize, by: f64) {
        for (t, want) in self.want.iter_mut().enumerate() {
            *want = (1.0 - by) * *want + if t == topic { by } else { 0.0 };
        }
    }

    fn chances_of(&self, thing: &Thing) -> Chances {
        let want = self.want[thing.topic] / self.want.iter().sum::<f64>().max(1e-9);
        let taste = self.mood.taste[thing.topic];
        let fashion = self.mood.fashion.get(thing.topic).copied().unwrap_or(0.0);
        let repeats = self.recent.iter().filter(|t| **t == thing.topic).count() as f64;
        // Two or three of a kind are welcome, more are tiring.
        let tired = (repeats - 3.0).max(0.0);
        let weary = self.weary.get(thing.topic).copied().unwrap_or(0.0);
        let base = self.person.readiness + thing.quality + fashion + 1.6 * taste - 0.35 * tired - weary;
        let disliked = if thing.topic == self.person.disliked { 1.0 } else { 0.0 };
        let hide =
            sigmoid(-5.2 + 2.2 * disliked + 0.35 * tired - 1.5 * want - 0.4 * (thing.quality + fashion));
        let click = (1.0 - hide) * sigmoid(base - 2.6 + 4.6 * want - disliked);
        let save = click * sigmoid(base - 1.6 + 3.2 * want);
        Chances { click, save, hide }
    }
}

/// What is wanted for a while: mostly one topic, a little of a second, and of everything a trace.
fn fresh_want(mood: &Mood, stray: f64, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let topics = mood.taste.len();
    // What is in fashion is wanted more by those who stray.
    let fashion: Vec<f64> = mood.fashion.iter().map(|topic| topic.exp()).collect();
    let mut one = || match rng.random_bool(stray) {
        true if fashion.is_empty() => rng.random_range(0..topics),
        true => draw(rng, &fashion),
        false => draw(rng, &mood.taste),
    };
    let (first, second) = (one(), one());
    let mut want = vec![0.1 / topics as f64; topics];
    want[first] += 0.65;
    want[second] += 0.25;
    want
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
