//! How an input is changed: a few small edits of a known input, drawn from a seeded generator.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Longest input that a mutation makes, bytes: longer ones only make each case slower.
pub const MAX_INPUT_BYTES: usize = 1 << 16;

/// Bytes at which varints, lengths and signs turn over.
const EDGES: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, b'"'];

/// Makes a new input from `base`: 1 to 5 edits. `other` gives material for splices, `words` are inserted whole.
pub fn mutate(rng: &mut ChaCha8Rng, base: &[u8], other: &[u8], words: &[&[u8]]) -> Vec<u8> {
    let mut input = base.to_vec();
    // Mostly one or two edits: many at once leave nothing that a parser accepts.
    let edits = 1 + rng.random::<u8>().leading_zeros() / 2;
    for _ in 0..edits {
        edit(rng, &mut input, other, words);
    }
    input.truncate(MAX_INPUT_BYTES);
    input
}

fn edit(rng: &mut ChaCha8Rng, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
    let at = rng.random_range(0..=input.len());
    match rng.random_range(0u8..10) {
        0 => with_byte(input, at, |b| *b ^= 1 << rng.random_range(0u32..8)),
        1 => with_byte(input, at, |b| *b = EDGES[rng.random_range(0..EDGES.len())]),
        2 => with_byte(input, at, |b| *b = rng.random()),
        3 => splice(input, at, 0, &[EDGES[rng.random_range(0..EDGES.len())]]),
        4 => input.truncate(at),
        5 => {
            let cut = span(rng, input.len() - at);
            splice(input, at, cut, &[]);
        }
        6 => {
            let copy = input[at..at + span(rng, input.len() - at)].to_vec();
            splice(input, at, 0, &copy);
        }
        7 => {
            let from = rng.random_range(0..=other.len());
            let piece = &other[from..from + span(rng, other.len() - from)];
            let cut = span(rng, input.len() - at);
            splice(input, at, cut, piece);
        }
        8 => digit(rng, input, at),
        _ => {
            if !words.is_empty() {
                splice(input, at, 0, words[rng.random_range(0..words.len())]);
            }
        }
    }
}

/// A length up to `most`, short ones more often.
fn span(rng: &mut ChaCha8Rng, most: usize) -> usize {
    let limit = if rng.random_bool(0.8) { most.min(16) } else { most };
    rng.random_range(0..=limit)
}

fn with_byte(input: &mut [u8], at: usize, change: impl FnOnce(&mut u8)) {
    if let Some(byte) = input.get_mut(at) {
        change(byte);
    }
}

fn splice(input: &mut Vec<u8>, at: usize, cut: usize, piece: &[u8]) {
    input.splice(at..at + cut, piece.iter().copied());
}

/// Changes the next ASCII digit from `at` on, or makes its number longer: texts with lengths and ranges.
fn digit(rng: &mut ChaCha8Rng, input: &mut Vec<u8>, at: usize) {
    let Some(found) = input[at..].iter().position(u8::is_ascii_digit) else { return };
    let new = b'0' + rng.random_range(0u8..10);
    let cut = usize::from(rng.random_bool(0.5));
    splice(input, at + found, cut, &[new]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn many(seed: u64) -> Vec<Vec<u8>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..2000).map(|_| mutate(&mut rng, b"length = 100", b"other", &[b"word"])).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        assert_eq!(many(1), many(1));
        assert_ne!(many(1), many(2));
    }

    #[test]
    fn every_kind_of_edit_happens() {
        let all = many(3);
        let has = |f: &dyn Fn(&[u8]) -> bool| all.iter().any(|i| f(i));
        assert!(has(&|i| i.is_empty() || b"length = 100".starts_with(i)), "cut");
        assert!(has(&|i| i.windows(4).any(|w| w == b"word")), "word");
        assert!(has(&|i| i.windows(3).any(|w| w == b"oth")), "splice");
        assert!(has(&|i| i.starts_with(b"length = ") && i.len() == 13 && i.is_ascii()), "digit");
        assert!(all.iter().filter(|i| *i != b"length = 100").count() > 1500, "most inputs differ");
    }

    #[test]
    fn an_empty_input_can_be_mutated() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..500 {
            assert!(mutate(&mut rng, b"", b"", &[]).len() <= MAX_INPUT_BYTES);
        }
    }
}
