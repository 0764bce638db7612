//! Pinned places: after blending, so that a pin moves others but never changes which of them are there.

/// Puts candidates in their places and keeps `limit`. `pins` are (candidate, place), each candidate and each place once;
/// a place beyond the page's end is its end.
pub(crate) fn place(mut page: Vec<usize>, pins: &[(usize, usize)], limit: usize) -> Vec<usize> {
    if pins.is_empty() {
        return page;
    }
    let mut pins = pins.to_vec();
    pins.sort_by_key(|(_, place)| *place);
    pins.truncate(limit);
    page.retain(|i| pins.iter().all(|(pinned, _)| pinned != i));
    page.truncate(limit - pins.len());
    for (candidate, place) in pins {
        page.insert(place.min(page.len()), candidate);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_take_their_places_without_doubles_and_the_others_keep_their_order() {
        assert_eq!(place(vec![0, 1, 2, 3], &[(3, 0), (9, 2)], 4), [3, 0, 9, 1]);
        assert_eq!(place(vec![0, 1], &[(7, 5), (8, 1)], 9), [0, 8, 1, 7], "beyond the end is the end");
        assert_eq!(place(vec![0, 1], &[(1, 0), (0, 1)], 2), [1, 0]);
        assert_eq!(place(vec![4, 2], &[], 9), [4, 2]);
        assert_eq!(place(vec![0], &[(1, 0), (2, 1)], 1), [1]);
    }
}
