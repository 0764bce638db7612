use std::collections::HashMap;

use lately_features::Schema;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::world::{batch, small, tiny};
use crate::official::{Given, OfficialError, export, import};
use crate::{Encoder, Fusion, Model, ModelConfig, Outputs, Scratch};

fn config() -> ModelConfig {
    ModelConfig { compatibility: true, affinity: false, ..tiny() }
}

/// A file's tensors, changed and written again, in one of the ways in which they may be named.
fn renamed(bytes: &[u8], meta: bool, name: impl Fn(&str) -> Option<String>) -> Vec<u8> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(bytes).unwrap();
    let tensors: Vec<(String, TensorView<'_>)> =
        file.tensors().into_iter().filter_map(|(n, t)| Some((name(&n)?, t))).collect();
    let meta: Option<HashMap<_, _>> = metadata.metadata().clone().filter(|_| meta);
    safetensors::serialize(tensors, meta).unwrap()
}

#[test]
fn a_model_survives_export_and_import() {
    let schema = small();
    let b = batch(&schema, &[(3, 2), (0, 1)], 1);
    let outputs = Some(Outputs::FirstK);
    for config in [
        config(),
        ModelConfig { fusion: Fusion::None, layers: 1, ..config() },
        ModelConfig { outputs, ffn: 3, hidden: vec![], cross_layers: 1, ..config() },
        ModelConfig { first_k: 0, max_pool: false, ..config() },
    ] {
        let model = Model::new(config, &schema, 3).unwrap();
        let bytes = export(&model).unwrap();
        let names: Vec<_> =
            SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(str::to_owned).collect();
        let layer = "transformer_encoder.layers.0.self_attn.in_proj_weight";
        assert!(
            ["action_emb_module.weight", layer].iter().all(|n| names.iter().any(|m| m == n)),
            "{names:?}"
        );
        let back = import(&bytes, &schema, &ModelConfig::default(), Given::default(), 9).unwrap();
        assert!(back.untrained.is_empty());
        assert_eq!(back.model.parameters(), model.parameters());
        let score = |m: &Model| m.score(&b, &mut Scratch::default()).unwrap();
        assert_eq!(score(&back.model), score(&model));
        assert!(export(&back.model).unwrap() == bytes, "other bytes");
    }
}

#[test]
fn every_way_of_naming_is_read() {
    let schema = small();
    let model = Model::new(config(), &schema, 3).unwrap();
    let bytes = export(&model).unwrap();
    // Without metadata heads and K come from the configuration.
    let base = ModelConfig { attention_heads: 2, first_k: 3, ..ModelConfig::default() };
    let module =
        |n: &str| n.starts_with("action_emb") || n.starts_with("transformer_") || n.starts_with("out_");
    let reference = |n: &str| {
        let n = n.replace("action_emb_module", "action").replace("transformer_encoder", "encoder");
        n.replace("out_linear", "pool")
    };
    let inside = |n: &str| if module(n) { format!("transact.{}", reference(n)) } else { n.to_owned() };
    for bytes in [
        renamed(&bytes, false, |n| Some(n.to_owned())),
        renamed(&bytes, false, |n| Some(inside(n))),
        renamed(&bytes, false, |n| Some(format!("weight.{}", inside(n)))),
    ] {
        let read = import(&bytes, &schema, &base, Given::default(), 9).unwrap();
        assert_eq!(read.model.parameters(), model.parameters());
        assert_eq!(read.model.config().attention_heads, 2);
    }
    let alone = renamed(&bytes, true, |n| module(n).then(|| n.to_owned()));
    let read =
        import(&alone, &schema, &ModelConfig { hidden: vec![4], ..base }, Given::default(), 9).unwrap();
    assert!(read.untrained.iter().all(|n| !n.starts_with("transact.")) && read.untrained.len() == 8);
    assert_eq!(read.model.parameters()[..3], model.parameters()[..3]);
}

fn problem(bytes: &[u8], schema: &Schema) -> OfficialError {
    import(bytes, schema, &ModelConfig::default(), Given::default(), 1).unwrap_err()
}

#[test]
fn what_does_not_fit_is_named() {
    let schema = small();
    let bytes = export(&Model::new(config(), &schema, 3).unwrap()).unwrap();
    let keep = |n: &str| Some(n.to_owned());
    let mut other = schema.clone();
    other.actions.pop();
    let error = problem(&bytes, &other);
    assert!(
        matches!(&error, OfficialError::Shape { name, .. } if name == "action_emb_module.weight"),
        "{error}"
    );
    let mut other = schema.clone();
    other.heads.pop();
    assert!(
        matches!(problem(&bytes, &other), OfficialError::Shape { name, .. } if name.starts_with("heads"))
    );
    let text = super::world::SMALL.replace("dim = 4 }", "dim = 5 }");
    let error = problem(&bytes, &Schema::from_toml(&text).unwrap());
    assert!(matches!(&error, OfficialError::Shape { .. }), "{error}");
    let cut = renamed(&bytes, true, |n| keep(n).filter(|n| n != "out_linear.bias"));
    assert!(matches!(problem(&cut, &schema), OfficialError::Missing(n) if n == "transact.pool.bias"));
    let cut = renamed(&bytes, true, |n| keep(n).filter(|n| n != "mlp.1.weight"));
    assert!(import(&cut, &schema, &ModelConfig::default(), Given::default(), 1).is_err());
    let more = renamed(&bytes, true, |n| Some(n.replace("transformer_encoder.layers.1.norm2", "norm3")));
    assert!(matches!(problem(&more, &schema), OfficialError::Missing(n) if n.contains("norm2")));
    let model = Model::new(ModelConfig { layers: 1, ..config() }, &schema, 3).unwrap();
    let more = export(&model).unwrap();
    let file = SafeTensors::deserialize(&more).unwrap();
    let vocabulary = TensorView::new(Dtype::I64, vec![1], &[0; 8]).unwrap();
    let mut tensors = file.tensors();
    tensors.push(("action_type_lookup".into(), vocabulary));
    let meta =
        Some(HashMap::from([("heads".to_owned(), "2".to_owned()), ("first_k".to_owned(), "3".to_owned())]));
    assert!(
        import(
            &safetensors::serialize(tensors.clone(), meta.clone()).unwrap(),
            &schema,
            &tiny(),
            Given::default(),
            1
        )
        .is_ok()
    );
    let extra = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
    tensors.push(("batch_norm.weight".into(), extra));
    let extra = safetensors::serialize(tensors, meta).unwrap();
    assert!(matches!(problem(&extra, &schema), OfficialError::Unknown(n) if n == "batch_norm.weight"));
    assert!(matches!(problem(b"no file", &schema), OfficialError::File(_)));
}

#[test]
fn a_model_that_the_official_module_cannot_be_is_not_exported() {
    let outputs = Some(Outputs::Max);
    for config in [
        tiny(),
        ModelConfig { encoder: Encoder::Mean, ..config() },
        ModelConfig { outputs, ..config() },
        ModelConfig { cross_width: 8, ..config() },
    ] {
        let model = Model::new(config, &small(), 3).unwrap();
        assert!(matches!(export(&model), Err(OfficialError::NotOfficial(_))));
    }
}
