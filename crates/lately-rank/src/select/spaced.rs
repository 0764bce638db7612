//! Spacing of topics alone, in the order of the scores: after so many items of one topic the best item of another one
//! within the next `window` takes the place; where there is none, the order by score goes on.

/// The first `limit` of `ordered`, spaced.
pub(super) fn spaced(
    ordered: &[usize],
    topics: &[u32],
    limit: usize,
    run: usize,
    window: usize,
) -> Vec<usize> {
    let limit = limit.min(ordered.len());
    let mut out: Vec<usize> = Vec::with_capacity(limit);
    let mut used = vec![false; ordered.len()];
    let mut first = 0; // the best unused one
    while out.len() < limit {
        while used[first] {
            first += 1;
        }
        let full = full_topic(&out, topics, run);
        let fits = |at: &usize| !used[*at] && topics[ordered[*at]] != full;
        let end = ordered.len().min(first.saturating_add(window + 1));
        let take = if full == 0 { first } else { (first..end).find(fits).unwrap_or(first) };
        used[take] = true;
        out.push(ordered[take]);
    }
    out
}

/// The topic that may not come next; 0: any may.
pub(super) fn full_topic(page: &[usize], topics: &[u32], run: usize) -> u32 {
    let Some(last) = page.last().map(|i| topics[*i]) else { return 0 };
    let full = run > 0 && page.len() >= run && page[page.len() - run..].iter().all(|i| topics[*i] == last);
    if full { last } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The topics of a page of items in the order of their scores, with these topics.
    fn page(topics: &[u32], limit: usize, run: usize, window: usize) -> Vec<u32> {
        let order: Vec<usize> = (0..topics.len()).collect();
        spaced(&order, topics, limit, run, window).into_iter().map(|i| topics[i]).collect()
    }

    #[test]
    fn spacing_lets_at_most_so_many_of_a_topic_in_a_row() {
        assert_eq!(page(&[1, 1, 1, 1, 2, 3, 1], 7, 2, 50), [1, 1, 2, 1, 1, 3, 1]);
        assert_eq!(page(&[1; 4], 3, 2, 50), [1; 3], "soft: nothing else is there");
        assert_eq!(page(&[0, 0, 0, 2], 4, 2, 50), [0, 0, 0, 2], "0 is no topic");
        assert_eq!(page(&[1, 1, 1, 2], 4, 1, 1), [1, 1, 2, 1], "bounded look-ahead");
        assert_eq!(page(&[1, 1, 2], 9, 0, 50), [1, 1, 2], "0 is off");
    }
}
