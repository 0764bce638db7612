//! Model files: [`lately_model::checkpoint`], once as raw bytes and once with a changed manifest in a whole file, as a
//! change of length in the manifest makes the file around it unreadable.

use std::error::Error;
use std::sync::LazyLock;

use lately_features::{Assembler, FeatureBatch, RequestContext, Schema, Token, assemble};
use lately_model::checkpoint::{from_bytes, to_bytes};
use lately_model::{CheckpointError, Encoder, Manifest, Model, ModelConfig, Scratch};
use serde_json::Value;

use super::schema::{EXAMPLE, MINIMAL};
use super::{Target, Verdict};

pub(super) const FILE: Target = Target {
    name: "checkpoint",
    about: "model files: checkpoint::from_bytes, then a score",
    seeds: || SEEDS.clone(),
    words: &[b"F16", b"\"shape\":[]", b"99999999", &[0, 0, 0xc0, 0x7f], &[0xff; 8], b"{}", b"null"],
    check: |input| check(from_bytes(input)),
};

pub(super) const MANIFEST: Target = Target {
    name: "manifest",
    about: "the manifest in an otherwise whole model file: its sizes decide what is allocated",
    seeds: || SEEDS.iter().take(1).map(|file| manifest_of(file).into_bytes()).collect(),
    words: &[
        b"\"layers\":32,",
        b"65536",
        b"18446744073709551615",
        b"-1",
        b"1e400",
        b"null",
        b"[[",
        b"\"mean\"",
    ],
    check: |input| match std::str::from_utf8(input) {
        Ok(text) => check(from_bytes(&with_manifest(&SEEDS[0], text))),
        Err(e) => Verdict::refused(e),
    },
};

/// Small files of each encoder, over the schema with every key and the one with the fewest.
static SEEDS: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| seeds().unwrap_or_else(|e| panic!("seed checkpoints: {e}")));

fn seeds() -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let of = |text: &str, encoder| -> Result<Vec<u8>, Box<dyn Error>> {
        let schema = Schema::from_toml(text)?;
        let config = ModelConfig {
            encoder,
            layers: 1,
            ffn: 2,
            first_k: 1,
            action_dim: 2,
            cross_layers: 1,
            hidden: vec![2],
            ..ModelConfig::default()
        };
        let model = Model::new(config, &schema, 1)?;
        Ok(to_bytes(&model, &Manifest::new(&model, &schema, 1))?)
    };
    Ok(vec![of(EXAMPLE, Encoder::Transact)?, of(MINIMAL, Encoder::Mean)?, of(MINIMAL, Encoder::None)?])
}

fn check(read: Result<(Model, Manifest), CheckpointError>) -> Verdict {
    let (model, manifest) = match read {
        Ok(read) => read,
        Err(e) => return Verdict::refused(e),
    };
    let bytes =
        to_bytes(&model, &manifest).unwrap_or_else(|e| panic!("what was read cannot be written: {e}"));
    let (again, same) = from_bytes(&bytes).unwrap_or_else(|e| panic!("what was written is refused: {e}"));
    assert_eq!(to_bytes(&again, &same).ok(), Some(bytes), "writing is not stable");
    assert!(manifest.check_schema(&manifest.schema).is_ok(), "it fits its own schema");

    let batch = batch(&manifest.schema);
    let logits = model
        .score(&batch, &mut Scratch::default())
        .unwrap_or_else(|e| panic!("a batch of its own schema is refused: {e}"));
    assert_eq!(logits.len(), batch.rows() * manifest.heads.len(), "a logit a row and head");
    Verdict::Accepted
}

/// Two requests, one with a token and one without, of unknown items: all that a valid schema surely has.
fn batch(schema: &Schema) -> FeatureBatch {
    let mut batch = FeatureBatch::default();
    let assembler = Assembler::new(schema);
    let context = RequestContext { time_ms: 1_000, surface: 0, watermark: 1 };
    let token = Token { action: 0, surface: 0, time_ms: 1, item: None, actions: 1 };
    for tokens in [&[token][..], &[]] {
        assemble(&mut batch, &assembler, &context, None, tokens, [None, None]);
    }
    batch
}

const METADATA: &str = "__metadata__";
const KEY: &str = "lately.manifest";

/// The parts of a safetensors file: its JSON header and its data.
fn parts(file: &[u8]) -> (Value, &[u8]) {
    let (length, rest) = file.split_first_chunk::<8>().unwrap_or_else(|| panic!("a seed has a header"));
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    (serde_json::from_slice(header).unwrap_or_else(|e| panic!("a seed has a JSON header: {e}")), data)
}

fn manifest_of(file: &[u8]) -> String {
    parts(file).0[METADATA][KEY].as_str().unwrap_or_default().to_owned()
}

/// The file with another text for a manifest.
fn with_manifest(file: &[u8], text: &str) -> Vec<u8> {
    let (mut header, data) = parts(file);
    header[METADATA][KEY] = text.into();
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header, data].concat()
}
