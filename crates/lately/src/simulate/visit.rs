//! A day of a town: who comes when, what they are shown, what they do.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};
use lately_features::event::Action;
use lately_features::{Event, EventId, ItemId, RequestId};
use lately_rank::{RankRequest, RankResponse, Rules};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::person::Column;
use super::town::{DAY_MS, Town};
use crate::world::{Outcome, stream};

/// Items of a page.
const PAGE: usize = 12;
/// Pause between two pages, ms, after the last action.
const PAUSE_MS: i64 = 3_000;
/// Most visits a day, as times what is usual: no eagerness asks for more.
const MOST: f64 = 1.6;
const SURFACE: &str = "home";

impl Town {
    /// Everybody's visits of the next day.
    pub(super) fn one_day(&mut self) -> Result<()> {
        for (time_ms, person) in self.visits() {
            self.visit(person, time_ms)?;
        }
        self.ranker.flush_impressions();
        self.day += 1;
        Ok(())
    }

    /// Starts of visits, by time. Each possible visit has its moment and its threshold whatever happened before, so that of
    /// two towns of one seed the same visits are made where people are as eager.
    fn visits(&self) -> Vec<(i64, usize)> {
        let mut visits = Vec::new();
        for (number, person) in self.people.iter().enumerate() {
            let mut rng = stream(self.seed ^ 0xda15, number as u64, u64::from(self.day));
            let possible = (MOST * person.visits_per_day).ceil().max(1.0);
            for _ in 0..possible as usize {
                let (moment, threshold) = (rng.random::<f64>(), rng.random::<f64>());
                let wanted = threshold * possible < person.visits_per_day * person.life.eagerness();
                if wanted && f64::from(self.day) + moment >= person.arrives {
                    visits.push((self.midnight() + (moment * DAY_MS as f64) as i64, number));
                }
            }
        }
        visits.sort_unstable();
        visits
    }

    fn visit(&mut self, person: usize, start_ms: i64) -> Result<()> {
        let user = self.people[person].user.clone();
        // Lent for the visit: the session holds the world.
        let (mut life, mut profile) = (self.people[person].life.clone(), self.people[person].profile.clone());
        let mut session = self.world.visit_with(&user, start_ms, &life)?;
        let mut rng = stream(self.seed ^ 0xcad1, person as u64, start_ms as u64);
        let mut tally = self.people[person].days[self.day as usize];
        let mut variant = self.people[person].variant.take();
        let mut now_ms = start_ms;
        tally[Column::Visits as usize] += 1.0;
        loop {
            let page = self.page(&user, now_ms, &mut rng)?;
            let items: Vec<ItemId> = page.items.iter().map(|i| i.item.clone()).collect();
            let outcomes = session.react(&items)?;
            let topics: HashSet<usize> =
                items.iter().map(|i| self.world.topic(i)).collect::<Result<_, _>>()?;
            for (column, n) in
                [(Column::Pages, 1), (Column::Items, items.len()), (Column::Topics, topics.len())]
            {
                tally[column as usize] += n as f64;
            }
            outcomes
                .iter()
                .filter_map(|o| Column::of_action(o.action))
                .for_each(|c| tally[c as usize] += 1.0);
            for saved in outcomes.iter().filter(|o| o.action == "save") {
                profile.saved(self.world.topic(&saved.item)?);
            }
            let last_ms = outcomes.last().map_or(0, |o| o.delay_ms);
            variant = page.exposures.first().map(|e| e.variant.clone()).or(variant);
            self.log(&page, outcomes, now_ms)?;
            now_ms += last_ms + PAUSE_MS;
            if !session.wants_more() {
                break;
            }
        }
        life.lived(&session, now_ms);
        let person = &mut self.people[person];
        person.days[self.day as usize] = tally;
        (person.life, person.profile, person.variant) = (life, profile, variant);
        Ok(())
    }

    fn page(
        &self,
        user: &lately_features::UserId,
        now_ms: i64,
        rng: &mut ChaCha8Rng,
    ) -> Result<RankResponse> {
        self.clock.store(now_ms, Ordering::Relaxed);
        let mut chosen = HashSet::with_capacity(self.recipe.candidates);
        let mut candidates = Vec::with_capacity(self.recipe.candidates);
        while candidates.len() < self.recipe.candidates {
            let at = rng.random_range(0..self.items.len());
            if chosen.insert(at) {
                candidates.push(self.items[at].clone());
            }
        }
        let response = self.ranker.rank(RankRequest {
            surface: Some(SURFACE.to_owned()),
            limit: Some(PAGE),
            request: Some(RequestId::new(format!("{user}-{now_ms}"))?),
            deadline: Some(Duration::from_secs(60)),
            rules: Rules { hidden: true, shown: true, spacing: true },
            ..RankRequest::new(user.clone(), candidates)
        })?;
        ensure!(response.degraded.is_empty(), "a page was served degraded: {:?}", response.degraded);
        Ok(response)
    }

    fn log(&self, page: &RankResponse, outcomes: Vec<Outcome>, now_ms: i64) -> Result<()> {
        let action = |outcome: Outcome| -> Result<Event> {
            Ok(Event::Action(Action {
                event_id: EventId::new(format!("{}:{}:{}", page.request, outcome.item, outcome.action))?,
                user: page.user.clone(),
                item: outcome.item,
                action: outcome.action.to_owned(),
                time_ms: now_ms + outcome.delay_ms,
                request: Some(page.request.clone()),
                surface: Some(SURFACE.to_owned()),
            }))
        };
        self.store.append(outcomes.into_iter().map(action).collect::<Result<_>>()?)?;
        Ok(())
    }
}
