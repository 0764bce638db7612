use lately_features::FeatureBatch;

use super::world::{batch, small, tiny};
use crate::config::{Encoder, Fusion, ModelConfig, Outputs, SequenceActions};
use crate::{Gradients, Model, ModelError, NormaliserFit, Scratch};

/// One request of a batch of the small schema, as a batch of its own.
pub(crate) fn one_request(b: &FeatureBatch, r: usize) -> FeatureBatch {
    pick(b, &[r], false)
}

/// Some requests in another order, their candidates turned round on demand.
pub(crate) fn pick(b: &FeatureBatch, requests: &[usize], turned: bool) -> FeatureBatch {
    let mut out = FeatureBatch::default();
    let rows = |list: &[u32], r: usize| list[r] as usize..list[r + 1] as usize;
    let (users, n) = (b.requests(), b.rows());
    for r in requests {
        copy(&mut out.user, &b.user, *r, users);
        out.surface.push(b.surface[*r]);
        let tokens = rows(&b.token_offsets, *r);
        let d = b.candidate.len() / n;
        out.token_action.extend(&b.token_action[tokens.clone()]);
        out.token_actions.extend(&b.token_actions[tokens.clone()]);
        out.token_surface.extend(&b.token_surface[tokens.clone()]);
        out.token_age_ms.extend(&b.token_age_ms[tokens.clone()]);
        out.token_item.extend(&b.token_item[tokens.start * d..tokens.end * d]);
        let mut candidates: Vec<_> = rows(&b.row_offsets, *r).collect();
        if turned {
            candidates.reverse();
        }
        for row in &candidates {
            copy(&mut out.item, &b.item, *row, n);
            out.candidate.extend(&b.candidate[row * d..(row + 1) * d]);
            let heads = b.label.len() / n;
            out.label.extend(&b.label[row * heads..(row + 1) * heads]);
        }
        out.token_offsets.push((out.tokens() + tokens.len()) as u32);
        out.row_offsets.push((out.rows() + candidates.len()) as u32);
    }
    out
}

fn copy(
    out: &mut lately_features::batch::Columns,
    from: &lately_features::batch::Columns,
    i: usize,
    n: usize,
) {
    let part = |len: usize| i * (len / n)..(i + 1) * (len / n);
    out.categorical.extend(&from.categorical[part(from.categorical.len())]);
    out.numeric.extend(&from.numeric[part(from.numeric.len())]);
    out.embedding.extend(&from.embedding[part(from.embedding.len())]);
}

fn close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} {b}");
    }
}

pub(crate) fn configs() -> Vec<ModelConfig> {
    let mut configs = vec![tiny(), ModelConfig { fusion: Fusion::None, ..tiny() }];
    configs.push(ModelConfig { fusion: Fusion::Append, ..tiny() });
    configs.push(ModelConfig { encoder: Encoder::Mean, ..tiny() });
    configs.push(ModelConfig { encoder: Encoder::Din, ..tiny() });
    configs.push(ModelConfig { encoder: Encoder::Bst, ..tiny() });
    let sequence_actions = SequenceActions::Positive;
    configs.push(ModelConfig { encoder: Encoder::Bst, sequence_actions, ..tiny() });
    configs.push(ModelConfig { sequence_actions, action_types: false, ..tiny() });
    let all = ModelConfig { multi_action: true, token_surface: true, age_buckets: 9, ..tiny() };
    configs.push(all.clone());
    configs.push(ModelConfig { encoder: Encoder::Bst, ..all.clone() });
    configs.push(ModelConfig { fusion: Fusion::Append, ..all });
    configs.push(ModelConfig { outputs: Some(Outputs::Max), ..tiny() });
    configs.push(ModelConfig { encoder: Encoder::None, ..tiny() });
    configs.push(ModelConfig { compatibility: true, ..tiny() });
    configs.push(ModelConfig { layers: 1, first_k: 0, cross_width: 16, ..ModelConfig::default() });
    configs
}

#[test]
fn a_rows_logits_do_not_depend_on_its_company_or_place() {
    let schema = small();
    let requests: Vec<_> = (0..70).map(|i| (i % 7, 1 + i % 4)).collect();
    let b = batch(&schema, &requests, 2);
    let mut scratch = Scratch::default();
    for config in configs() {
        let model = Model::new(config, &schema, 1).unwrap();
        let all = model.score(&b, &mut scratch).unwrap();
        assert!(all.iter().all(|x| x.is_finite()));
        assert_eq!(all, model.score(&b, &mut scratch).unwrap(), "the same call gives the same bits");
        let heads = model.heads();
        for r in [0, 1, 13, 42, 69] {
            let rows = b.row_offsets[r] as usize * heads..b.row_offsets[r + 1] as usize * heads;
            close(&model.score(&pick(&b, &[r], false), &mut scratch).unwrap(), &all[rows.clone()]);
            let turned = model.score(&pick(&b, &[33, r], true), &mut scratch).unwrap();
            let turned = &turned[turned.len() - rows.len()..];
            let mut back: Vec<_> = turned.chunks(heads).collect();
            back.reverse();
            close(&back.concat(), &all[rows]);
        }
    }
}

#[test]
fn the_order_of_actions_and_the_candidate_matter() {
    let schema = small();
    let mut scratch = Scratch::default();
    let model = Model::new(tiny(), &schema, 1).unwrap();
    let b = batch(&schema, &[(5, 1)], 2);
    let before = model.score(&b, &mut scratch).unwrap();
    let mut other = b.clone();
    other.token_action[0] = (other.token_action[0] + 1) % 4;
    assert_ne!(before, model.score(&other, &mut scratch).unwrap());
    let mut other = b.clone();
    other.candidate[0] += 0.5;
    assert_ne!(before, model.score(&other, &mut scratch).unwrap());
}

#[test]
fn empty_batches_and_histories_score() {
    let schema = small();
    let mut scratch = Scratch::default();
    for config in configs() {
        let model = Model::new(config, &schema, 1).unwrap();
        assert_eq!(model.score(&FeatureBatch::default(), &mut scratch).unwrap(), [] as [f32; 0]);
        assert_eq!(model.score(&batch(&schema, &[(3, 0)], 1), &mut scratch).unwrap(), [] as [f32; 0]);
        let cold = model.score(&batch(&schema, &[(0, 2), (0, 1)], 1), &mut scratch).unwrap();
        assert!(cold.len() == 6 && cold.iter().all(|x| x.is_finite()), "{cold:?}");
    }
}

#[test]
fn an_empty_history_gives_zeros() {
    let schema = small();
    let (mut logits, mut sequence) = (Vec::new(), Vec::new());
    let b = batch(&schema, &[(0, 1), (2, 1)], 1);
    for encoder in [Encoder::Mean, Encoder::Din] {
        let model = Model::new(ModelConfig { encoder, ..tiny() }, &schema, 1).unwrap();
        model
            .network
            .score::<crate::Cpu>(&b, &mut Scratch::default(), &mut logits, Some(&mut sequence))
            .unwrap();
        let empty = sequence.drain(..).map(|x| x == 0.0).collect::<Vec<_>>();
        assert_eq!(empty, [[true; 8], [false; 8]].concat(), "{encoder:?}");
    }
    let model = Model::new(tiny(), &schema, 1).unwrap();
    let mut scratch = Scratch::default();
    model.network.score::<crate::Cpu>(&b, &mut scratch, &mut logits, Some(&mut sequence)).unwrap();
    let width = model.network.plan.encoder.output;
    assert!(sequence[..width].iter().all(|x| *x == 0.0));
    // [pool ; first 3 of width 12]: two tokens, so the third place is zero.
    assert!(sequence[width..2 * width - 12].iter().all(|x| *x != 0.0));
    assert!(sequence[2 * width - 12..].iter().all(|x| *x == 0.0));
}

#[test]
fn an_appended_candidate_is_given_on_even_alone() {
    let schema = small();
    let model = Model::new(ModelConfig { fusion: Fusion::Append, ..tiny() }, &schema, 1).unwrap();
    let (mut logits, mut sequence) = (Vec::new(), Vec::new());
    let b = batch(&schema, &[(0, 2), (5, 2)], 1);
    let mut scratch = Scratch::default();
    model.network.score::<crate::Cpu>(&b, &mut scratch, &mut logits, Some(&mut sequence)).unwrap();
    // [pool ; candidate ; first 3], each 8 wide.
    let rows: Vec<&[f32]> = sequence.chunks(40).collect();
    assert_eq!(rows.len(), 4);
    assert!(rows[0][..16].iter().all(|x| *x != 0.0) && rows[0][16..].iter().all(|x| *x == 0.0));
    assert!(rows[2].iter().all(|x| *x != 0.0));
    // Every token attends to the candidate.
    assert!(rows[2].iter().zip(rows[3]).all(|(a, b)| a != b), "{rows:?}");
}

#[test]
fn outputs_say_what_first_k_and_max_pool_said() {
    let schema = small();
    let b = batch(&schema, &[(3, 2), (0, 1)], 1);
    let score = |config| Model::new(config, &schema, 1).unwrap().score(&b, &mut Scratch::default()).unwrap();
    for (first_k, max_pool, outputs) in
        [(3, true, Outputs::FirstKMax), (3, false, Outputs::FirstK), (0, false, Outputs::All)]
    {
        let old = score(ModelConfig { first_k, max_pool, ..tiny() });
        assert_eq!(old, score(ModelConfig { outputs: Some(outputs), max_pool: !max_pool, ..tiny() }));
    }
    let model = Model::new(ModelConfig { outputs: Some(Outputs::Max), ..tiny() }, &schema, 1).unwrap();
    assert_eq!(model.network.plan.encoder.output, 12);
}

/// Scores of a batch after changing its tokens' action types.
fn with_actions(model: &Model, b: &FeatureBatch, actions: &[u8]) -> Vec<f32> {
    let mut b = b.clone();
    b.token_action.copy_from_slice(actions);
    model.score(&b, &mut Scratch::default()).unwrap()
}

#[test]
fn only_positive_actions_reach_the_model_where_it_is_so_configured() {
    let schema = small();
    // pad is neutral, click and save positive, hide negative.
    let b = batch(&schema, &[(3, 2)], 1);
    for encoder in [Encoder::Mean, Encoder::Din, Encoder::Bst, Encoder::Transact] {
        let positive = ModelConfig { encoder, sequence_actions: SequenceActions::Positive, ..tiny() };
        let model = Model::new(positive.clone(), &schema, 1).unwrap();
        let mut two = b.clone();
        two.token_offsets[1] = 2;
        two.token_action = vec![1, 2];
        two.token_surface.remove(1);
        two.token_actions.remove(1);
        two.token_age_ms.remove(1);
        two.token_item.drain(4..8);
        let kept = model.score(&two, &mut Scratch::default()).unwrap();
        assert_eq!(with_actions(&model, &b, &[1, 3, 2]), kept, "{encoder:?}");
        assert_eq!(with_actions(&model, &b, &[1, 0, 2]), kept, "{encoder:?}");
        assert_ne!(with_actions(&model, &b, &[1, 1, 2]), kept, "{encoder:?}");
        let all = Model::new(ModelConfig { affinity: false, ..tiny() }, &schema, 1).unwrap();
        assert_ne!(with_actions(&all, &b, &[1, 3, 2]), with_actions(&all, &b, &[1, 0, 2]));
    }
}

#[test]
fn without_types_only_items_count() {
    let schema = small();
    let b = batch(&schema, &[(3, 2)], 1);
    let untyped = ModelConfig { action_types: false, affinity: false, ..tiny() };
    for config in [untyped, ModelConfig { encoder: Encoder::Bst, affinity: false, ..tiny() }] {
        let model = Model::new(config, &schema, 1).unwrap();
        assert_eq!(with_actions(&model, &b, &[1, 3, 2]), with_actions(&model, &b, &[0, 2, 1]));
    }
}

#[test]
fn each_input_of_a_token_counts_where_it_is_on_and_only_there() {
    let schema = small();
    let mut b = batch(&schema, &[(3, 2)], 1);
    b.token_age_ms[1] = 500;
    let score = |config: &ModelConfig, b: &FeatureBatch| {
        Model::new(config.clone(), &schema, 1).unwrap().score(b, &mut Scratch::default()).unwrap()
    };
    let all = ModelConfig { multi_action: true, token_surface: true, age_buckets: 9, ..tiny() };
    let compatible = ModelConfig { compatibility: true, ..all.clone() };
    let mut changed = [b.clone(), b.clone(), b.clone()];
    changed[0].token_actions[1] ^= 0b1000;
    changed[1].token_surface[1] = (changed[1].token_surface[1] + 1) % 3;
    changed[2].token_age_ms[1] = 3_000_000; // within the affinity's window
    for other in &changed {
        assert_ne!(score(&all, &b), score(&all, other));
        assert_eq!(score(&tiny(), &b), score(&tiny(), other));
        assert_eq!(score(&compatible, &b), score(&compatible, other));
    }
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let schema = small();
    let model = Model::new(tiny(), &schema, 1).unwrap();
    let good = batch(&schema, &[(2, 2), (1, 1)], 1);
    let mut scratch = Scratch::default();
    let mut refused = |change: &dyn Fn(&mut FeatureBatch)| {
        let mut bad = good.clone();
        change(&mut bad);
        model.score(&bad, &mut scratch).unwrap_err()
    };
    let length = |what, want, got| ModelError::Length { what, want, got };
    let index = |what, got, limit| ModelError::Index { what, got, limit };
    assert_eq!(refused(&|b| b.candidate.truncate(11)), length("candidate", 12, 11));
    assert_eq!(refused(&|b| b.user.numeric.push(0.0)), length("numeric", 2, 3));
    assert_eq!(refused(&|b| b.token_offsets[1] = 9), index("token_offsets", 9, 3));
    assert_eq!(refused(&|b| b.row_offsets[0] = 1), length("row_offsets", 0, 1));
    assert_eq!(refused(&|b| b.row_offsets.clear()), length("row_offsets", 0, 1));
    assert_eq!(refused(&|b| b.token_action[0] = 4), index("token_action", 4, 3));
    assert_eq!(refused(&|b| b.surface[0] = 3), index("surface", 3, 2));
    assert_eq!(refused(&|b| b.item.categorical[3] = 9), index("categorical", 9, 8));
    assert_eq!(refused(&|b| b.token_item[0] = f32::NAN), ModelError::NotFinite("token_item"));
    let mut gradients = Gradients::zeros(&model);
    let weight = vec![1.0; 5];
    let short = model.loss_and_gradient(&good, &weight, None, &mut scratch, &mut gradients);
    assert_eq!(short.unwrap_err(), length("weight", 6, 5));
}

#[test]
fn configurations_out_of_range_are_refused() {
    let schema = small();
    for config in [
        ModelConfig { attention_heads: 5, ..tiny() },
        ModelConfig { layers: 0, ..tiny() },
        ModelConfig { encoder: Encoder::Bst, compatibility: true, ..tiny() },
        ModelConfig { outputs: Some(Outputs::FirstK), first_k: 0, ..tiny() },
        ModelConfig { fusion: Fusion::Append, compatibility: true, ..tiny() },
        ModelConfig { dropout: 1.0, ..tiny() },
        ModelConfig { dropout: f32::NAN, ..tiny() },
        ModelConfig { hidden: vec![0], ..tiny() },
        ModelConfig { cross_width: 65_536, ..tiny() },
    ] {
        let error = Model::new(config, &schema, 1).unwrap_err();
        assert!(matches!(error, ModelError::Config { .. }), "{error}");
    }
    assert!(
        serde_json::from_str::<ModelConfig>(r#"{"layer": 2}"#).unwrap_err().to_string().contains("layer")
    );
    assert_eq!(serde_json::from_str::<ModelConfig>("{}").unwrap(), ModelConfig::default());
}

#[test]
fn the_fitted_normaliser_makes_inputs_of_one_size() {
    let schema = small();
    let requests = vec![(1, 2); 200];
    let mut fit = NormaliserFit::new(&schema);
    let b = batch(&schema, &requests, 3);
    fit.add(&b);
    let mut model = Model::new(tiny(), &schema, 1).unwrap();
    let before = model.score(&b, &mut Scratch::default()).unwrap();
    model.set_normaliser(fit.finish()).unwrap();
    let n = model.normaliser();
    // Numbers are uniform in +-2, embeddings in +-1.
    assert!(n.user_std.iter().chain(&n.item_std).all(|s| (s - 2.0 / 3f32.sqrt()).abs() < 0.15), "{n:?}");
    assert!((n.embedding_scale - 0.5 * 3f32.sqrt()).abs() < 0.05, "{n:?}");
    assert_ne!(before, model.score(&b, &mut Scratch::default()).unwrap());
    let mut bad = n.clone();
    bad.item_std[0] = 0.0;
    assert_eq!(model.set_normaliser(bad).unwrap_err(), ModelError::NotFinite("normaliser"));
    model.set_head_bias(&[-3.0, f32::NAN]).unwrap_err();
    model.set_head_bias(&[-3.0, -5.0]).unwrap();
    assert_eq!(model.parameters().last().unwrap().data, [-3.0, -5.0]);
}

#[test]
fn a_few_steps_of_descent_lower_the_loss() {
    let schema = small();
    let mut model = Model::new(ModelConfig { hidden: vec![64], ..tiny() }, &schema, 1).unwrap();
    let b = batch(&schema, &[(3, 4), (5, 4), (0, 4)], 6);
    let weight = vec![1.0 / 12.0; b.label.len()];
    let (mut scratch, mut gradients) = (Scratch::default(), Gradients::zeros(&model));
    let mut losses = Vec::new();
    for step in 0..150 {
        gradients.clear();
        losses.push(model.loss_and_gradient(&b, &weight, None, &mut scratch, &mut gradients).unwrap());
        for ((_, data), gradient) in model.parameters_mut().zip(gradients.iter_mut()) {
            data.iter_mut().zip(gradient.data.iter()).for_each(|(w, g)| *w -= 0.01 * g / (g.abs() + 1e-3));
        }
        assert!(losses[step].is_finite());
    }
    assert!(losses[149] < 0.2 * losses[0], "{losses:?}");
}
