//! How long files and functions are: a report, not a rule. The aim: median file 100 to 200 lines, median function
//! 6 to 8, under 4 % of functions past 70; but never split a thing only to be shorter.

use super::source::Source;

/// A function longer than this is worth a look.
const LONG_FUNCTION: usize = 70;

/// Prints percentiles and the largest of files, functions, and functions of tests.
pub(super) fn print(sources: &[Source]) {
    let files = sources.iter().map(|s| (s.lines, s.path.clone())).collect();
    report("files", files);
    for (title, test) in [("functions", false), ("functions of tests", true)] {
        let found = sources.iter().flat_map(|s| s.functions.iter().map(move |f| (s, f)));
        let found: Vec<_> = found
            .filter(|(_, f)| f.test == test)
            .map(|(s, f)| (f.lines, format!("{}:{} {}", s.path, f.at, f.name)))
            .collect();
        let long = found.iter().filter(|(lines, _)| *lines > LONG_FUNCTION).count();
        let share = 100.0 * long as f64 / found.len().max(1) as f64;
        report(title, found);
        println!("         past {LONG_FUNCTION} lines: {long} ({share:.1} %)");
    }
}

fn report(title: &str, mut sizes: Vec<(usize, String)>) {
    sizes.sort_by(|a, b| b.cmp(a));
    let ascending: Vec<usize> = sizes.iter().rev().map(|(lines, _)| *lines).collect();
    let (p50, p90, max) =
        (percentile(&ascending, 50), percentile(&ascending, 90), percentile(&ascending, 100));
    println!("{title}: {}, lines p50 {p50}, p90 {p90}, max {max}; the largest:", sizes.len());
    for (lines, name) in sizes.iter().take(5) {
        println!("  {lines:>5}  {name}");
    }
}

/// Nearest rank: the smallest value that at least `p` percent do not pass; 0 of nothing.
fn percentile(ascending: &[usize], p: usize) -> usize {
    let rank = (ascending.len() * p).div_ceil(100).max(1);
    ascending.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let ten: Vec<usize> = (1..=10).collect();
        assert_eq!([50, 90, 100].map(|p| percentile(&ten, p)), [5, 9, 10]);
        assert_eq!(percentile(&[7], 50), 7);
        assert_eq!(percentile(&[], 90), 0);
    }
}
