//! How long ago an action was, in buckets.

/// log2 of the seconds of a year, which start the last bucket.
const YEAR: f64 = 25.0;

/// The bucket of an age, of `buckets` even steps of log2(1 + age in s): fine for this sitting, coarse for last month.
/// Actions that are dated later than the request are of no age.
pub(crate) fn bucket(age_ms: i64, buckets: usize) -> u32 {
    let seconds = age_ms.max(0) as f64 / 1_000.0;
    let step = (1.0 + seconds).log2() * buckets.saturating_sub(1) as f64 / YEAR;
    (step as usize).min(buckets.saturating_sub(1)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_grow_with_the_age_and_cover_all_of_it() {
        let of = |seconds: i64| bucket(seconds * 1_000, 26);
        assert_eq!([0, 1, 2, 3, 62, 63, 3_600, 86_400].map(of), [0, 1, 1, 2, 5, 6, 11, 16]);
        assert_eq!((bucket(-5_000, 26), bucket(i64::MIN, 26), bucket(i64::MAX, 26)), (0, 0, 25));
        assert_eq!((bucket(86_400_000, 1), bucket(86_400_000, 0)), (0, 0));
    }
}
