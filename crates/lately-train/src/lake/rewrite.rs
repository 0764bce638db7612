//! Files written again as one: sorted, corrected, without who was forgotten, thinned where that is due.

use xxhash_rust::xxh3::xxh3_64;

use super::columns::Requests;
use super::error::LakeError;
use super::manifest::{File, Forgotten};
use super::page::Page;
use super::reader::{Corrected, LakeReader, positive};

/// How files become one.
pub(super) struct Rewrite<'a> {
    pub(super) reader: &'a LakeReader,
    pub(super) corrected: Corrected,
    pub(super) forgotten: &'a [Forgotten],
    /// Share of the negatives that stay; `None`: all that are there.
    pub(super) rate: Option<f32>,
}

impl Rewrite<'_> {
    /// All rows of some files, and the lowest share of negatives among them; `None` where one is damaged.
    ///
    /// A user's requests stand together, as they share most of their tokens.
    pub(super) fn page(&self, files: &[&File]) -> Result<Option<(Page, f32)>, LakeError> {
        let mut loaded = Vec::new();
        for file in files {
            let Some((mut requests, items)) = self.reader.load(file, |_| true)? else { return Ok(None) };
            self.correct(&mut requests);
            loaded.push((Page::of(requests, items), Vec::new()));
        }
        let mut order: Vec<(usize, usize)> = Vec::new();
        for (at, (page, _)) in loaded.iter().enumerate() {
            order.extend(
                (0..page.rows()).filter(|row| !self.is_forgotten(&page.requests, *row)).map(|row| (at, row)),
            );
        }
        let key = |(at, row): &(usize, usize)| {
            let r = &loaded[*at].0.requests;
            (r.user.values[*row].data(), r.time.values[*row], r.offset.values[*row])
        };
        order.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        let mut page = Page::default();
        for (at, row) in order {
            let (from, numbers) = &mut loaded[at];
            match self.rate.and_then(|rate| self.kept(from, row, rate)) {
                Some((keep, rate)) => page.push_thinned(from, row, numbers, &keep, rate),
                None => page.push_row(from, row, numbers),
            }
        }
        let rates = files.iter().map(|f| f.negative_rate).chain(self.rate);
        Ok(Some((page, rates.fold(1.0, f32::min))))
    }

    fn correct(&self, requests: &mut Requests) {
        for row in 0..requests.offset.len() {
            if requests.negative_rate.values[row] < 1.0 || self.corrected.is_empty() {
                continue; // corrections name places of candidates that thinning has moved
            }
            let offset = requests.offset.values[row];
            for (candidate, observed) in (0..).zip(requests.candidate_observed.row_mut(row)) {
                *observed = *self.corrected.get(&(offset, candidate)).unwrap_or(observed);
            }
        }
    }

    fn is_forgotten(&self, requests: &Requests, row: usize) -> bool {
        let (user, offset) = (requests.user.values[row].data(), requests.offset.values[row]);
        self.forgotten.iter().any(|f| offset < f.offset as i64 && f.user.as_bytes() == user)
    }

    /// The candidates of a row that thinning keeps, and the rate at which; `None` where it is that thin already.
    fn kept(&self, page: &Page, row: usize, rate: f32) -> Option<(Vec<bool>, f32)> {
        let r = &page.requests;
        if r.negative_rate.values[row] <= rate {
            return None;
        }
        let positive = positive(&self.reader.schema);
        let request = r.request.values[row].data();
        let candidates = r.candidate_item.row(row).iter().zip(r.candidate_observed.row(row));
        let keep = |(item, observed): (&i32, &i64)| {
            *observed as u64 & positive != 0
                || drawn(request, page.items.item.values[*item as usize].data()) < rate
        };
        Some((candidates.map(keep).collect(), rate))
    }
}

/// A number from 0 to 1 that a request and an item always have: a lower rate keeps a part of what a higher one kept.
fn drawn(request: &[u8], item: &[u8]) -> f32 {
    let hash = xxh3_64(&[request, &[0], item].concat());
    (hash >> 40) as f32 / (1u64 << 24) as f32
}
