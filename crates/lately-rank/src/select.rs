//! From scores to a slate: pure functions over positions.

/// A scored candidate, as selection sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Position among the candidates.
    pub index: usize,
    /// Its score, finite.
    pub score: f32,
    /// Its first topic; 0: none, which is never spaced.
    pub topic: u32,
}

/// Spacing of topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spacing {
    /// Most items of one topic in a row.
    pub run: usize,
    /// How many places further down another topic is looked for.
    pub window: usize,
}

/// Best first, ties in the order of the candidates; then spaced, if asked, and cut at `limit`.
///
/// Spacing is soft: after `run` items of one topic the best item of another topic within the next `window` takes the
/// place; where there is none, the order by score goes on.
pub fn select(mut scored: Vec<Scored>, limit: usize, spacing: Option<Spacing>) -> Vec<Scored> {
    scored.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
    match spacing {
        Some(spacing) if spacing.run > 0 => spaced(&scored, limit, spacing),
        _ => {
            scored.truncate(limit);
            scored
        }
    }
}

fn spaced(ordered: &[Scored], limit: usize, spacing: Spacing) -> Vec<Scored> {
    let limit = limit.min(ordered.len());
    let mut out: Vec<Scored> = Vec::with_capacity(limit);
    let mut used = vec![false; ordered.len()];
    let mut first = 0; // the best unused one
    while out.len() < limit {
        while used[first] {
            first += 1;
        }
        let full = full_topic(&out, spacing.run);
        let fits = |i: &usize| !used[*i] && ordered[*i].topic != full;
        let end = ordered.len().min(first + spacing.window + 1);
        let take = if full == 0 { first } else { (first..end).find(fits).unwrap_or(first) };
        used[take] = true;
        out.push(ordered[take]);
    }
    out
}

/// The topic that may not come next; 0: any may.
fn full_topic(out: &[Scored], run: usize) -> u32 {
    let Some(last) = out.last() else { return 0 };
    let full = out.len() >= run && out[out.len() - run..].iter().all(|s| s.topic == last.topic);
    if full { last.topic } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items in the order of their scores, with these topics.
    fn with_topics(topics: &[u32]) -> Vec<Scored> {
        let scored = |(i, t): (usize, &u32)| Scored { index: i, score: -(i as f32), topic: *t };
        topics.iter().enumerate().map(scored).collect()
    }

    fn topics(slate: &[Scored]) -> Vec<u32> {
        slate.iter().map(|s| s.topic).collect()
    }

    #[test]
    fn best_first_and_ties_in_the_order_of_the_candidates() {
        let item = |index, score| Scored { index, score, topic: 0 };
        let slate = select(vec![item(0, 1.0), item(1, 2.0), item(2, 1.0)], 9, None);
        assert_eq!(slate.iter().map(|s| s.index).collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(select(vec![item(0, 1.0), item(1, 2.0)], 1, None).len(), 1);
    }

    #[test]
    fn spacing_lets_at_most_so_many_of_a_topic_in_a_row() {
        let spacing = Some(Spacing { run: 2, window: 50 });
        let slate = select(with_topics(&[1, 1, 1, 1, 2, 3, 1]), 7, spacing);
        assert_eq!(topics(&slate), [1, 1, 2, 1, 1, 3, 1]);
        assert_eq!(topics(&select(with_topics(&[1; 4]), 3, spacing)), [1; 3], "soft: nothing else is there");
        assert_eq!(topics(&select(with_topics(&[0, 0, 0, 2]), 4, spacing)), [0, 0, 0, 2], "0 is no topic");
        let near = Some(Spacing { run: 1, window: 1 });
        assert_eq!(topics(&select(with_topics(&[1, 1, 1, 2]), 4, near)), [1, 1, 2, 1], "bounded look-ahead");
    }

    #[test]
    fn a_slate_is_a_permutation_of_a_subset() {
        let spacing = Some(Spacing { run: 2, window: 3 });
        let topics: Vec<u32> = (0..200).map(|i: u32| i * i % 7 % 3).collect();
        let mut indices: Vec<_> =
            select(with_topics(&topics), 200, spacing).iter().map(|s| s.index).collect();
        indices.sort_unstable();
        assert_eq!(indices, (0..200).collect::<Vec<_>>());
    }
}
