//! What was logged before there was a model: people, shown a mix of what is popular and of chance.

use lately_features::event::{Action, Impression, ImpressionItem};
use lately_features::{Event, EventId, ItemId, RequestId, UserId};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Arrival, World, WorldError, stream};

const DAY_MS: i64 = 86_400_000;
/// Items of a page.
const PAGE: usize = 12;
/// Of a page, how many are taken from the most clicked ones; the rest at random.
const POPULAR: usize = 4;
/// The most clicked items from which the popular ones are drawn.
const POOL: usize = 60;
/// Pause between two pages, ms, after the last action.
const PAUSE_MS: i64 = 3_000;

impl World {
    /// Impressions and actions of `days` days that end at `end_ms`, in the order of time, each impression before its
    /// actions. The same arguments give the same events.
    pub fn bootstrap(&self, days: u32, end_ms: i64) -> Result<Vec<Event>, WorldError> {
        let start_ms = end_ms - i64::from(days) * DAY_MS;
        let mut log = Log { events: Vec::new(), clicks: vec![0; self.things.len()], ids: 0 };
        let mut rng = stream(self.config.seed, 0xb007, start_ms as u64);
        for (time_ms, user) in self.visits(start_ms, days, &mut rng) {
            self.one_visit(&user, time_ms, &mut log, &mut rng)?;
        }
        // Visits overlap. An impression and an action of the same time belong to different visits.
        log.events.retain(|e| e.time_ms() < end_ms);
        log.events.sort_by_key(Event::time_ms);
        Ok(log.events)
    }

    /// Starts of all visits, by time.
    fn visits(&self, start_ms: i64, days: u32, rng: &mut ChaCha8Rng) -> Vec<(i64, UserId)> {
        let mut visits = Vec::new();
        for person in &self.people {
            let expected = person.visits_per_day * f64::from(days);
            let n = expected as usize + usize::from(rng.random_bool(expected.fract()));
            for _ in 0..n {
                let at = rng.random_range(0..i64::from(days.max(1)) * DAY_MS);
                match person.arrival {
                    Arrival::Always => visits.push((start_ms + at, person.id.clone())),
                    Arrival::Resurrected => visits.push((start_ms + at / 8, person.id.clone())),
                    Arrival::New => {}
                }
            }
        }
        visits.sort();
        visits
    }

    fn one_visit(
        &self,
        user: &UserId,
        start_ms: i64,
        log: &mut Log,
        rng: &mut ChaCha8Rng,
    ) -> Result<(), WorldError> {
        let mut session = self.visit(user, start_ms)?;
        let mut now = start_ms;
        loop {
            let page = self.page(&log.clicks, rng);
            let items: Vec<ItemId> = page.iter().map(|i| self.things[*i].id.clone()).collect();
            let request = log.impression(user, &items, now)?;
            let outcomes = session.react(&items)?;
            let last = outcomes.last().map_or(0, |o| o.delay_ms);
            for outcome in outcomes {
                if outcome.action == "click"
                    && let Some(at) = self.thing_of.get(&outcome.item)
                {
                    log.clicks[*at] += 1;
                }
                log.action(user, outcome.item, outcome.action, now + outcome.delay_ms, &request)?;
            }
            now += last + PAUSE_MS;
            if !session.wants_more() {
                return Ok(());
            }
        }
    }

    /// Some popular things and some at random, in random order, none twice.
    fn page(&self, clicks: &[u32], rng: &mut ChaCha8Rng) -> Vec<usize> {
        let mut pool: Vec<usize> = (0..clicks.len()).collect();
        pool.sort_by_key(|i| (std::cmp::Reverse(clicks[*i]), *i));
        pool.truncate(POOL);
        let mut page: Vec<usize> = Vec::with_capacity(PAGE);
        let size = PAGE.min(clicks.len());
        while page.len() < size {
            let next = if page.len() < POPULAR.min(size) && pool.len() > POPULAR {
                pool[rng.random_range(0..pool.len())]
            } else {
                rng.random_range(0..clicks.len())
            };
            if !page.contains(&next) {
                page.push(next);
            }
        }
        for i in (1..page.len()).rev() {
            page.swap(i, rng.random_range(0..=i));
        }
        page
    }
}

struct Log {
    events: Vec<Event>,
    /// Of each thing.
    clicks: Vec<u32>,
    /// Ids given so far.
    ids: u64,
}

impl Log {
    fn impression(&mut self, user: &UserId, items: &[ItemId], time_ms: i64) -> Result<RequestId, WorldError> {
        self.ids += 1;
        let request = RequestId::new(format!("b{}", self.ids))?;
        let shown =
            |(position, item): (usize, &ItemId)| ImpressionItem::unscored(item.clone(), position as u16);
        let (surface, items) = (Some("home".to_owned()), items.iter().enumerate().map(shown).collect());
        let shown = Impression::outside(request.clone(), user.clone(), surface, time_ms, items);
        self.events.push(Event::Impression(shown));
        Ok(request)
    }

    fn action(
        &mut self,
        user: &UserId,
        item: ItemId,
        action: &str,
        time_ms: i64,
        request: &RequestId,
    ) -> Result<(), WorldError> {
        self.ids += 1;
        self.events.push(Event::Action(Action {
            event_id: EventId::new(format!("b{}", self.ids))?,
            user: user.clone(),
            item,
            action: action.to_owned(),
            time_ms,
            request: Some(request.clone()),
            surface: Some("home".to_owned()),
        }));
        Ok(())
    }
}
