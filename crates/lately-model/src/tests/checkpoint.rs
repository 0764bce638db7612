use super::world::{batch, small, tiny};
use crate::checkpoint::{CheckpointError, Manifest, from_bytes, to_bytes, to_bytes_with, with_golden};
use crate::{Calibration, Golden, HeadCalibration, Model, ModelConfig, Normaliser, Scratch};

fn model() -> Model {
    let mut model = Model::new(tiny(), &small(), 3).unwrap();
    let normaliser = Normaliser { user_mean: vec![0.1], embedding_scale: 0.3, ..model.normaliser().clone() };
    model.set_normaliser(normaliser).unwrap();
    let bent = HeadCalibration::Isotonic { knots: vec![(-0.1, -1.0 / 3.0), (0.2, 0.7)] };
    let calibration = Calibration { heads: vec![bent, HeadCalibration::IDENTITY], rows: 7 };
    model.set_calibration(Some(calibration)).unwrap();
    model
}

fn bytes() -> Vec<u8> {
    let model = model();
    let mut manifest = Manifest::new(&model, &small(), 3);
    manifest.metrics.insert("click.auc".into(), 0.123_456_789);
    manifest.parent = Some("abc".into());
    to_bytes(&model, &manifest).unwrap()
}

#[test]
fn a_model_survives_the_round_trip_to_the_bit() {
    let bytes = bytes();
    assert_eq!(bytes, self::bytes(), "the same model gives the same bytes");
    let (read, manifest) = from_bytes(&bytes).unwrap();
    assert_eq!(read.parameters(), model().parameters());
    assert_eq!(read.normaliser(), model().normaliser());
    assert_eq!(manifest.metrics["click.auc"], 0.123_456_789);
    assert_eq!((manifest.actions.len(), manifest.heads.len()), (4, 2));
    let b = batch(&small(), &[(3, 2)], 1);
    let mut scratch = Scratch::default();
    assert_eq!(read.score(&b, &mut scratch).unwrap(), model().score(&b, &mut scratch).unwrap());
    assert_eq!(to_bytes(&read, &manifest).unwrap(), bytes);
}

#[test]
fn scores_are_calibrated_and_an_uncalibrated_model_of_old_is_read() {
    let (calibrated, manifest) = from_bytes(&bytes()).unwrap();
    let mut plain = calibrated.clone();
    plain.set_calibration(None).unwrap();
    assert!(to_bytes(&plain, &manifest).is_err(), "a manifest of another calibration");
    let (b, mut scratch) = (batch(&small(), &[(3, 2), (1, 4)], 1), Scratch::default());
    let (raw, got) = (plain.score(&b, &mut scratch).unwrap(), calibrated.score(&b, &mut scratch).unwrap());
    let head = &calibrated.calibration().unwrap().heads[0];
    for (raw, got) in raw.chunks(2).zip(got.chunks(2)) {
        assert_eq!(got, [head.apply(raw[0]), raw[1]]);
        assert_ne!(got[0], raw[0]);
    }
    let mut old = serde_json::to_value(&manifest).unwrap();
    old["calibration"] = serde_json::Value::Null; // as every manifest before calibration had it
    let old: Manifest = serde_json::from_value(old).unwrap();
    let (read, _) = from_bytes(&to_bytes(&plain, &old).unwrap()).unwrap();
    assert_eq!(read.score(&b, &mut scratch).unwrap(), raw);
}

#[test]
fn another_schema_is_refused() {
    let (_, manifest) = from_bytes(&bytes()).unwrap();
    manifest.check_schema(&small()).unwrap();
    let mut other = small();
    other.surfaces.push("search".into());
    assert!(matches!(manifest.check_schema(&other), Err(CheckpointError::OtherSchema { .. })));
    let foreign = Manifest::new(&model(), &other, 1);
    assert!(to_bytes(&model(), &foreign).is_err(), "a manifest of another model");
}

#[test]
fn damaged_bytes_give_an_error_and_never_a_panic() {
    let bytes = bytes();
    assert!(from_bytes(&[]).is_err());
    assert!(from_bytes(&[0xff; 64]).is_err());
    assert!(from_bytes(b"{\"format\": 1}").is_err());
    for cut in (0..bytes.len()).step_by(37).chain(bytes.len() - 9..bytes.len()) {
        assert!(from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(from_bytes(&longer).is_err());
    // Any flipped bit gives an error or a model without NaN; header bytes densely, weights sparsely.
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut damaged = bytes.clone();
    let mut refused = 0;
    for at in (0..header).chain((header..bytes.len()).step_by(101)) {
        for bit in [0, 3, 6, 7] {
            damaged[at] ^= 1 << bit;
            match from_bytes(&damaged) {
                Ok((model, _)) => {
                    assert!(model.parameters().iter().all(|p| p.data.iter().all(|x| x.is_finite())));
                }
                Err(_) => refused += 1,
            }
            damaged[at] ^= 1 << bit;
        }
    }
    assert!(refused > header, "{refused} of {} flips in the header were refused", 4 * header);
}

#[test]
fn weights_that_are_not_finite_are_refused_on_both_ways() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut model = model();
        let manifest = Manifest::new(&model, &small(), 3);
        model.network.parameters[5].data[1] = bad;
        assert!(matches!(to_bytes(&model, &manifest), Err(CheckpointError::NotFinite(_))));
        let mut bytes = bytes();
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&bad.to_le_bytes());
        assert!(matches!(from_bytes(&bytes), Err(CheckpointError::NotFinite(_))));
    }
}

#[test]
fn a_profile_comes_back_as_it_was_given() {
    let model = model();
    let profile = serde_json::json!({ "version": 7, "shares": [0.1, 0.12345, 1e-300] });
    let manifest = Manifest { profile: Some(profile), ..Manifest::new(&model, &small(), 3) };
    assert_eq!(from_bytes(&to_bytes(&model, &manifest).unwrap()).unwrap().1, manifest);
}

/// The file with its manifest changed as text of the same length.
fn edited(from: &str, to: &str) -> Result<(Model, Manifest), CheckpointError> {
    let text = bytes();
    let at = text.windows(from.len()).position(|w| w == from.as_bytes()).expect("in the manifest");
    let mut changed = text.clone();
    changed.splice(at..at + from.len(), to.bytes());
    let n = u64::from_le_bytes(changed[..8].try_into().unwrap()) + to.len() as u64 - from.len() as u64;
    changed[..8].copy_from_slice(&n.to_le_bytes());
    from_bytes(&changed)
}

#[test]
fn a_manifest_that_does_not_fit_is_refused() {
    let problem = |from, to| edited(from, to).unwrap_err().to_string();
    assert!(problem(r#"\"format\":3"#, r#"\"format\":4"#).contains("newer than 3"));
    for old in [r#"\"format\":1"#, r#"\"format\":2"#] {
        let (_, manifest) = edited(r#"\"format\":3"#, old).unwrap();
        assert_eq!(manifest.profile, None, "a file of a former format");
    }
    assert!(problem(r#"\"first_k\":3"#, r#"\"first_k\":4"#).contains("of shape"));
    assert!(problem(r#"\"ffn\":6"#, r#"\"ffn\":999999999"#).contains("`ffn` is 999999999"));
    assert!(problem(r#"\"hidden\":[9,7]"#, r#"\"hidden\":[9]"#).contains("tensors"));
    assert!(problem(r#"\"surfaces\":[\"home\""#, r#"\"surfaces\":[\"hove\""#).contains("schema hash"));
    assert!(problem(r#"\"heads\":[\"click\""#, r#"\"heads\":[\"clock\""#).contains("list of heads"));
    assert!(problem(r#"\"seed\":3"#, r#"\"sead\":3"#).contains("sead"));
}

/// The configuration in a manifest of version 0.1, before there were other encoders and outputs.
const OLD_CONFIG: &str = r#"{"encoder":"transact","layers":1,"attention_heads":2,"ffn":6,"first_k":0,"max_pool":true,
    "fusion":"concat","action_dim":4,"affinity":true,"dropout":0.1,"cross_layers":2,"cross_width":0,"hidden":[9,7],
    "compatibility":false}"#;

#[test]
fn a_configuration_of_an_older_version_means_what_it_meant() {
    let old: ModelConfig = serde_json::from_str(OLD_CONFIG).unwrap();
    assert_eq!(old, ModelConfig { layers: 1, first_k: 0, din_hidden: 36, ..tiny() });
    let model = Model::new(old, &small(), 3).unwrap();
    // All five tokens and the maximum, each 12 wide.
    assert_eq!(model.network.plan.encoder.output, 72);
    let manifest = Manifest::new(&model, &small(), 3);
    assert!(!serde_json::to_string(&manifest).unwrap().contains("outputs"));
    assert_eq!(from_bytes(&to_bytes(&model, &manifest).unwrap()).unwrap().1.config, *model.config());
}

#[test]
fn the_default_configuration_survives_too() {
    let model =
        Model::new(ModelConfig { hidden: vec![8], cross_layers: 1, ..ModelConfig::default() }, &small(), 1);
    // 32 + 2 x 4 wide tokens; one head divides them.
    let model = model.unwrap();
    let manifest = Manifest::new(&model, &small(), 1);
    let (read, _) = from_bytes(&to_bytes(&model, &manifest).unwrap()).unwrap();
    assert_eq!(read.parameters(), model.parameters());
}

#[test]
fn golden_rows_travel_with_the_model_and_only_with_theirs() {
    let model = model();
    let manifest = Manifest::new(&model, &small(), 3);
    let b = batch(&small(), &[(3, 4), (0, 2)], 1);
    let golden = Golden::new(&model, b.clone()).unwrap();
    assert_eq!(golden.logits(), model.score(&b, &mut Scratch::default()).unwrap());
    assert!(golden.batch().label.is_empty());
    let bytes = to_bytes_with(&model, &manifest, Some(&golden)).unwrap();
    let (read, _, found) = with_golden(&bytes).unwrap();
    // Numbers that are not given are NaN: the bytes are compared.
    assert!(to_bytes_with(&read, &manifest, found.as_ref()).unwrap() == bytes);
    assert_eq!(found.unwrap().logits(), golden.logits());
    assert!(with_golden(&self::bytes()).unwrap().2.is_none(), "as every file of format 1");
    // A model with other heads: its rows have too many logits for this one.
    let three = format!("{}\n", super::world::SMALL).replace(
        r#"{ name = "save", actions = ["save"] }]"#,
        r#"{ name = "save", actions = ["save"] }, { name = "hide", actions = ["hide"] }]"#,
    );
    let three = lately_features::Schema::from_toml(&three).unwrap();
    let foreign = Golden::new(&Model::new(tiny(), &three, 1).unwrap(), b).unwrap();
    let bytes = to_bytes_with(&model, &manifest, Some(&foreign)).unwrap();
    assert!(matches!(from_bytes(&bytes), Err(CheckpointError::Golden(_))));
}
