//! A packed answer.

use super::bytes::{Reader, fit};
use super::{PackedError, VERSION};

const BEGINS: &str = "LYRA";

/// A ranking; the fields mean what they do in JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The ranking's id.
    pub request: String,
    /// Version and generation of the model; `None`: no model ranked.
    pub model: Option<(String, u64)>,
    /// Hash of the schema.
    pub schema_hash: String,
    /// Version of the item embeddings that the model was trained with.
    pub embedding_version: String,
    /// Position in the log up to which everything was known.
    pub watermark: u64,
    /// Names of the rungs of degradation in force.
    pub degraded: Vec<String>,
    /// Names of the heads; none where no model ranked.
    pub heads: Vec<String>,
    /// Candidates of the request.
    pub candidates: u16,
    /// Best first.
    pub items: Vec<Ranked>,
}

/// A ranked item.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// Place of the candidate in the request, from 0.
    pub candidate: u16,
    /// The value model's score.
    pub score: f32,
    /// One a head.
    pub probabilities: Vec<f32>,
}

impl Answer {
    /// The bytes. Each item has as many probabilities as there are heads.
    ///
    /// # Errors
    /// [`PackedError::TooLarge`] where the form has no room for it.
    pub fn encode(&self) -> Result<Vec<u8>, PackedError> {
        let (version, generation) = self.model.as_ref().map_or(("", 0), |(v, g)| (v.as_str(), *g));
        let texts = [&self.request, version, &self.schema_hash, &self.embedding_version];
        let mut bytes = BEGINS.as_bytes().to_vec();
        bytes.push(VERSION);
        bytes.push(fit("rungs", self.degraded.len())?);
        bytes.extend(self.candidates.to_le_bytes());
        bytes.extend(fit::<u16>("items", self.items.len())?.to_le_bytes());
        bytes.extend(fit::<u16>("heads", self.heads.len())?.to_le_bytes());
        for text in texts {
            bytes.push(fit("bytes of an id or a version", text.len())?);
        }
        bytes.extend(self.watermark.to_le_bytes());
        bytes.extend(generation.to_le_bytes());
        let names = self.heads.iter().chain(&self.degraded).map(String::as_str);
        for name in names.clone() {
            bytes.push(fit("bytes of a name", name.len())?);
        }
        for text in texts.into_iter().chain(names) {
            bytes.extend(text.as_bytes());
        }
        let items = &self.items;
        bytes.extend(items.iter().flat_map(|i| i.candidate.to_le_bytes()));
        bytes.extend(items.iter().flat_map(|i| i.score.to_le_bytes()));
        bytes.extend(items.iter().flat_map(|i| &i.probabilities).flat_map(|p| p.to_le_bytes()));
        Ok(bytes)
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// [`PackedError`] at the first thing that is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, PackedError> {
        let mut reader = Reader::open(bytes, "answer", BEGINS)?;
        let header = "the header";
        let rungs = reader.u8(header)?;
        let candidates = reader.u16(header)?;
        let (items, heads) = (usize::from(reader.u16(header)?), usize::from(reader.u16(header)?));
        let lengths = [reader.u8(header)?, reader.u8(header)?, reader.u8(header)?, reader.u8(header)?];
        let watermark = reader.u64(header)?;
        let generation = reader.u64(header)?;
        let head_lengths = reader.take(heads, "the heads' lengths")?;
        let rung_lengths = reader.take(rungs.into(), "the rungs' lengths")?;
        let request = reader.text(lengths[0], "request")?.unwrap_or_default().to_owned();
        let version = reader.text(lengths[1], "model version")?;
        let schema_hash = reader.text(lengths[2], "schema hash")?.unwrap_or_default().to_owned();
        let embedding_version = reader.text(lengths[3], "embedding version")?.unwrap_or_default().to_owned();
        let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
        let head_names: Vec<String> = owned(reader.texts(head_lengths, "heads")?);
        let degraded = owned(reader.texts(rung_lengths, "rungs")?);
        let model = match (version, generation) {
            (None, 0) if heads == 0 => None,
            (Some(version), 1..) => Some((version.to_owned(), generation)),
            _ => return Err(PackedError::Model),
        };
        let items = ranked(&mut reader, items, heads, candidates)?;
        reader.end()?;
        let heads = head_names;
        Ok(Self {
            request,
            model,
            schema_hash,
            embedding_version,
            watermark,
            degraded,
            heads,
            candidates,
            items,
        })
    }
}

fn ranked(
    reader: &mut Reader<'_>,
    n: usize,
    heads: usize,
    candidates: u16,
) -> Result<Vec<Ranked>, PackedError> {
    let (places, _) = reader.take(2 * n, "the places")?.as_chunks::<2>();
    let scores = reader.floats(n, "the scores")?;
    let probabilities = reader.floats(n * heads, "the probabilities")?;
    let mut seen = vec![false; candidates.into()];
    let item = |(i, (place, score)): (usize, (&[u8; 2], f32))| {
        let candidate = u16::from_le_bytes(*place);
        match seen.get_mut(usize::from(candidate)) {
            Some(seen @ false) => *seen = true,
            _ => return Err(PackedError::Place(candidate)),
        }
        let probabilities = probabilities[i * heads..(i + 1) * heads].to_vec();
        Ok(Ranked { candidate, score, probabilities })
    };
    places.iter().zip(scores).enumerate().map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer() -> Answer {
        Answer {
            request: "r".to_owned(),
            model: Some(("v".to_owned(), 2)),
            schema_hash: "s".to_owned(),
            embedding_version: String::new(),
            watermark: 3,
            degraded: vec!["no_sequence".to_owned()],
            heads: vec!["click".to_owned()],
            candidates: 2,
            items: vec![
                Ranked { candidate: 1, score: 0.5, probabilities: vec![0.25] },
                Ranked { candidate: 0, score: -1.0, probabilities: vec![0.0] },
            ],
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_table() {
        let mut want = b"LYRA\x01\x01\x02\x00\x02\x00\x01\x00\x01\x01\x01\x00".to_vec();
        want.extend(b"\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x05\x0brvsclickno_sequence\x01\0\0\0");
        want.extend([0.5f32, -1.0, 0.25, 0.0].iter().flat_map(|x| x.to_le_bytes()));
        assert_eq!(answer().encode().unwrap(), want);
        assert_eq!(Answer::decode(&want), Ok(answer()));
    }

    #[test]
    fn every_damage_has_its_error() {
        let good = answer().encode().unwrap();
        for cut in 0..good.len() {
            let error = Answer::decode(&good[..cut]).unwrap_err();
            assert!(matches!(error, PackedError::Short { .. } | PackedError::Magic { .. }), "{cut}: {error}");
        }
        let damaged = |change: fn(&mut Answer)| {
            let mut answer = answer();
            change(&mut answer);
            Answer::decode(&answer.encode().unwrap()).unwrap_err()
        };
        assert_eq!(damaged(|a| a.items[0].candidate = 0), PackedError::Place(0), "twice");
        assert_eq!(damaged(|a| a.items[0].candidate = 2), PackedError::Place(2), "no candidate");
        assert_eq!(damaged(|a| a.items[0].score = f32::NAN), PackedError::NotFinite);
        assert_eq!(damaged(|a| a.model = Some(("v".to_owned(), 0))), PackedError::Model);
        assert_eq!(damaged(|a| a.model = None), PackedError::Model, "probabilities of nobody");
        assert_eq!(Answer::decode(&[&good[..], &[0]].concat()), Err(PackedError::Long(1)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            places in prop::collection::hash_set(0u16..300, 0..60),
            heads in prop::collection::vec("[a-z]{1,20}", 1..5),
            degraded in prop::collection::vec("[a-z_]{1,20}", 0..4),
            version in "[0-9a-f]{1,64}", generation in 1u64.., watermark: u64, seed in -1e6f32..1e6,
        ) {
            let h = heads.len();
            let item = |candidate: u16| {
                let score = seed + f32::from(candidate);
                Ranked { candidate, score, probabilities: vec![score.fract(); h] }
            };
            let answer = Answer {
                model: Some((version, generation)),
                watermark,
                degraded,
                heads,
                candidates: 300,
                items: places.into_iter().map(item).collect(),
                ..answer()
            };
            prop_assert_eq!(Answer::decode(&answer.encode().unwrap()), Ok(answer));
        }
    }
}
