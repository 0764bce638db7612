use lately_features::FeatureBatch;
use lately_kernels::Real;
use lately_kernels::loss::list::Lists;

use super::world::{batch, small, tiny};
use crate::backend::{Backend, Cpu, Scalar};
use crate::config::{Encoder, Fusion, ModelConfig, Outputs, SequenceActions};
use crate::network::Network;
use crate::plan::{Plan, initial};
use crate::{Gradients, ModelError, Normaliser, Objective, Scratch};

/// Requests with (tokens, candidates): several candidates, an empty history, one token, no candidate, a long history.
const REQUESTS: &[(usize, usize)] = &[(3, 2), (0, 1), (1, 3), (2, 0), (5, 1), (0, 2), (8, 1)];

fn network<R: Real>(config: ModelConfig) -> Network<R> {
    let schema = small();
    let (plan, specs) = Plan::new(&config, &schema).unwrap();
    let mut parameters = initial::<R>(&specs, &config, 4);
    // Tables, biases and norms away from their special starts.
    for (i, p) in parameters.iter_mut().enumerate() {
        for (j, x) in p.data.iter_mut().enumerate() {
            *x += R::from_f64(0.2 * (((i * 31 + j * 7) % 13) as f64 / 6.0 - 1.0));
        }
    }
    let mut normaliser = Normaliser::identity(&schema);
    normaliser.embedding_scale = 0.7;
    normaliser.item_mean = vec![0.3, -0.1];
    normaliser.item_std = vec![0.2, 2.0];
    Network { config, plan, parameters, normaliser }
}

fn weights(b: &FeatureBatch) -> Vec<f32> {
    (0..b.label.len()).map(|i| 0.25 + (i % 5) as f32).collect()
}

fn loss<B: Backend<f64>>(
    network: &Network<f64>,
    b: &FeatureBatch,
    seed: Option<u64>,
) -> (f64, Gradients<f64>) {
    let mut gradients = Gradients::of(&network.parameters);
    let mut scratch = Scratch::default();
    let loss = network.loss_and_gradient::<B>(b, &weights(b), seed, &mut scratch, &mut gradients).unwrap();
    (loss, gradients)
}

/// Central differences of the loss for a spread of elements of every parameter.
fn check(config: ModelConfig, seed: Option<u64>) {
    const STEP: f64 = 1e-6;
    let mut network = network::<f64>(config);
    let b = batch(&small(), REQUESTS, 8);
    let (_, gradients) = loss::<Cpu>(&network, &b, seed);
    let gradients: Vec<_> =
        gradients.iter().map(|(n, g, t)| (n.to_owned(), g.to_vec(), t.map(<[u32]>::to_vec))).collect();
    for (i, (name, gradient, touched)) in gradients.iter().enumerate() {
        assert_eq!(*name, network.parameters[i].name);
        let scale = gradient.iter().fold(1.0, |m: f64, g| m.max(g.abs()));
        if let Some(rows) = touched {
            let width = network.parameters[i].shape[1];
            for (row, g) in gradient.chunks(width).enumerate() {
                let listed = rows.contains(&(row as u32));
                assert!(listed || g.iter().all(|g| *g == 0.0), "{name}: row {row} is not listed");
            }
        }
        let step = (gradient.len() / 12).max(1);
        for j in (0..gradient.len()).step_by(step) {
            let padding = network.config.compatibility && *name == "transact.action.weight";
            if padding && j < network.config.action_dim {
                assert_eq!(gradient[j], 0.0, "the padding row gets no gradient");
                continue;
            }
            let kept = network.parameters[i].data[j];
            network.parameters[i].data[j] = kept + STEP;
            let above = loss::<Cpu>(&network, &b, seed).0;
            network.parameters[i].data[j] = kept - STEP;
            let below = loss::<Cpu>(&network, &b, seed).0;
            network.parameters[i].data[j] = kept;
            let expected = (above - below) / (2.0 * STEP);
            let error = (gradient[j] - expected).abs() / scale;
            assert!(error < 1e-6, "{name}[{j}]: {} but {expected} by differences", gradient[j]);
        }
    }
}

#[test]
fn transact() {
    check(tiny(), None);
    check(ModelConfig { layers: 1, attention_heads: 1, ..tiny() }, None);
    check(ModelConfig { attention_heads: 3, first_k: 0, max_pool: false, ..tiny() }, None);
}

/// One head, whose weights fold, in each form of attention; the other tests have two heads.
#[test]
fn one_head() {
    let one = ModelConfig { attention_heads: 1, ..tiny() };
    check(one.clone(), None);
    check(ModelConfig { dropout: 0.3, ..one.clone() }, Some(5));
    for fusion in [Fusion::Append, Fusion::None] {
        check(ModelConfig { fusion, ..one.clone() }, None);
        check(ModelConfig { fusion, dropout: 0.2, layers: 1, ..one.clone() }, Some(6));
    }
    check(ModelConfig { encoder: Encoder::Bst, bst_layers: 2, ..one.clone() }, Some(4));
    check(ModelConfig { compatibility: true, ..one.clone() }, None);
    check(ModelConfig { compatibility: true, layers: 3, fusion: Fusion::None, ..one }, Some(1));
}

#[test]
fn each_output_of_transact() {
    for outputs in [Outputs::FirstKMax, Outputs::FirstK, Outputs::Max, Outputs::All] {
        check(ModelConfig { outputs: Some(outputs), layers: 1, ..tiny() }, None);
    }
    let outputs = Some(Outputs::Max);
    check(ModelConfig { outputs, fusion: Fusion::Append, layers: 1, ..tiny() }, None);
    check(ModelConfig { outputs, fusion: Fusion::None, layers: 1, ..tiny() }, None);
}

#[test]
fn transact_with_dropout() {
    check(ModelConfig { dropout: 0.3, ..tiny() }, Some(3));
}

#[test]
fn without_fusion() {
    check(ModelConfig { fusion: Fusion::None, layers: 1, ..tiny() }, None);
    check(ModelConfig { fusion: Fusion::None, ..tiny() }, Some(2));
}

#[test]
fn the_candidate_as_a_token() {
    check(ModelConfig { fusion: Fusion::Append, ..tiny() }, None);
    check(ModelConfig { fusion: Fusion::Append, layers: 1, first_k: 0, ..tiny() }, Some(2));
}

#[test]
fn target_attention() {
    check(ModelConfig { encoder: Encoder::Din, ..tiny() }, None);
    check(ModelConfig { encoder: Encoder::Din, din_hidden: 1, ..tiny() }, Some(2));
}

#[test]
fn behaviour_sequence_transformer() {
    check(ModelConfig { encoder: Encoder::Bst, ..tiny() }, None);
    check(ModelConfig { encoder: Encoder::Bst, bst_layers: 2, ..tiny() }, Some(4));
    check(ModelConfig { encoder: Encoder::Bst, sequence_actions: SequenceActions::Positive, ..tiny() }, None);
}

#[test]
fn some_actions_or_no_types() {
    for encoder in [Encoder::Mean, Encoder::Din, Encoder::Transact] {
        let sequence_actions = SequenceActions::Positive;
        check(ModelConfig { encoder, sequence_actions, action_types: false, ..tiny() }, None);
    }
}

#[test]
fn sets_of_actions_surfaces_and_ages_of_tokens() {
    check(ModelConfig { multi_action: true, layers: 1, ..tiny() }, None);
    let all = ModelConfig { multi_action: true, token_surface: true, age_buckets: 6, layers: 1, ..tiny() };
    check(ModelConfig { fusion: Fusion::Append, ..all.clone() }, None);
    for encoder in [Encoder::Mean, Encoder::Din, Encoder::Bst] {
        check(ModelConfig { encoder, ..all.clone() }, Some(1));
    }
}

#[test]
fn mean_and_no_sequence() {
    check(ModelConfig { encoder: Encoder::Mean, ..tiny() }, None);
    check(ModelConfig { encoder: Encoder::None, ..tiny() }, None);
}

#[test]
fn with_a_rate_tower() {
    check(ModelConfig { rate_hidden: 5, ..tiny() }, Some(2));
    check(ModelConfig { rate_hidden: 3, encoder: Encoder::None, ..tiny() }, None);
}

#[test]
fn narrow_or_no_cross_layers_and_no_mlp() {
    check(ModelConfig { cross_width: 8, layers: 1, ..tiny() }, None);
    check(ModelConfig { cross_layers: 0, encoder: Encoder::None, ..tiny() }, None);
    check(ModelConfig { hidden: vec![], encoder: Encoder::Mean, ..tiny() }, None);
}

#[test]
fn compatibility() {
    check(ModelConfig { compatibility: true, ..tiny() }, None);
    check(ModelConfig { compatibility: true, layers: 1, fusion: Fusion::None, ..tiny() }, None);
}

#[test]
fn the_fast_path_is_the_reference_path() {
    let network = network::<f64>(tiny());
    let b = batch(&small(), REQUESTS, 8);
    let (fast, fast_gradients) = loss::<Cpu>(&network, &b, Some(1));
    let (slow, slow_gradients) = loss::<Scalar>(&network, &b, Some(1));
    assert!((fast - slow).abs() < 1e-9 * slow, "{fast} {slow}");
    for ((name, a, _), (_, b, _)) in fast_gradients.iter().zip(slow_gradients.iter()) {
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 1e-9 * (1.0 + b.abs()), "{name}: {a} {b}");
        }
    }
}

#[test]
fn chunks_change_nothing() {
    // More rows than one chunk holds: the loss and gradients are the sums over single requests.
    let network = network::<f64>(tiny());
    let requests: Vec<_> = (0..90).map(|i| (i % 4, 1 + i % 3)).collect();
    let whole = batch(&small(), &requests, 5);
    let (want, gradients) = loss::<Cpu>(&network, &whole, None);
    let mut sum = Gradients::of(&network.parameters);
    let (mut total, mut scratch) = (0.0, Scratch::default());
    let weight = weights(&whole);
    let mut at = 0;
    for r in 0..whole.requests() {
        let part = super::score::one_request(&whole, r);
        let n = part.label.len();
        total += network
            .loss_and_gradient::<Cpu>(&part, &weight[at..at + n], None, &mut scratch, &mut sum)
            .unwrap();
        at += n;
    }
    assert!((want - total).abs() < 1e-9 * want);
    for ((name, a, _), (_, b, _)) in gradients.iter().zip(sum.iter()) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9 * (1.0 + b.abs())), "{name}");
    }
}

/// Loss and gradient with the list term in both heads, of relative weights 1.5 and 0.5.
fn list_loss(
    network: &Network<f64>,
    b: &FeatureBatch,
    offsets: &[u32],
    seed: Option<u64>,
) -> (f64, Gradients<f64>) {
    let (weight, mut gradients) = (weights(b), Gradients::of(&network.parameters));
    let lists = Lists { offsets, head_weight: &[1.5, 0.5], copies: &[] };
    let objective = Objective { weight: &weight, lists: Some(lists) };
    let mut scratch = Scratch::default();
    let loss =
        network.objective_and_gradient::<Cpu>(b, &objective, seed, &mut scratch, &mut gradients).unwrap();
    (loss, gradients)
}

#[test]
fn the_list_term_reaches_every_parameter() {
    const STEP: f64 = 1e-6;
    let mut network = network::<f64>(tiny());
    let b = batch(&small(), REQUESTS, 8);
    let lists = [0, 3, 6, 8, 10]; // across requests and within
    let (with, gradients) = list_loss(&network, &b, &lists, Some(3));
    assert!(with > loss::<Cpu>(&network, &b, Some(3)).0 + 0.1);
    let gradients: Vec<Vec<f64>> = gradients.iter().map(|(_, g, _)| g.to_vec()).collect();
    for (i, gradient) in gradients.iter().enumerate() {
        let scale = gradient.iter().fold(1.0, |m: f64, g| m.max(g.abs()));
        for j in (0..gradient.len()).step_by((gradient.len() / 4).max(1)) {
            let kept = network.parameters[i].data[j];
            let mut at = |step: f64| {
                network.parameters[i].data[j] = kept + step;
                list_loss(&network, &b, &lists, Some(3)).0
            };
            let expected = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            network.parameters[i].data[j] = kept;
            let error = (gradient[j] - expected).abs() / scale;
            assert!(error < 1e-6, "{}[{j}]: {} but {expected}", network.parameters[i].name, gradient[j]);
        }
    }
}

#[test]
fn no_chunk_cuts_a_list() {
    // 90 requests of 2 rows and 60 lists of 3: chunks of 128 rows would cut one. All must be as if computed alone.
    let network = network::<f64>(tiny());
    let requests: Vec<_> = (0..90).map(|i| (i % 4, 2)).collect();
    let b = batch(&small(), &requests, 5);
    let short: Vec<u32> = (0..=60).map(|i| 3 * i).collect();
    let (mut total, gradients) = list_loss(&network, &b, &short, None);
    let mut sum = Gradients::of(&network.parameters);
    for group in 0..30u32 {
        // 3 requests hold two lists.
        let part = super::score::pick(&b, &[0, 1, 2].map(|r| 3 * group as usize + r), false);
        let weight = &weights(&b)[12 * group as usize..][..12];
        let lists = Lists { offsets: &[0, 3, 6], head_weight: &[1.5, 0.5], copies: &[] };
        let objective = Objective { weight, lists: Some(lists) };
        let scratch = &mut Scratch::default();
        total -= network.objective_and_gradient::<Cpu>(&part, &objective, None, scratch, &mut sum).unwrap();
    }
    assert!(total.abs() < 1e-8, "{total}");
    for ((name, a, _), (_, b, _)) in gradients.iter().zip(sum.iter()) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9 * (1.0 + b.abs())), "{name}");
    }
    // One list longer than a chunk is computed at once.
    assert!(list_loss(&network, &b, &[0, 180], None).0.is_finite());
}

#[test]
fn lists_that_do_not_cover_the_rows_are_refused() {
    let network = network::<f64>(tiny());
    let b = batch(&small(), &[(2, 2), (1, 1)], 1);
    let weight = weights(&b);
    let refused = |offsets: &[u32], head_weight: &[f32], copies: &[f32]| {
        let objective = Objective { weight: &weight, lists: Some(Lists { offsets, head_weight, copies }) };
        let (mut scratch, mut gradients) = (Scratch::default(), Gradients::of(&network.parameters));
        network.objective_and_gradient::<Cpu>(&b, &objective, None, &mut scratch, &mut gradients).unwrap_err()
    };
    let length = |what, want, got| ModelError::Length { what, want, got };
    assert_eq!(refused(&[0, 2], &[1.0; 2], &[]), length("list offsets", 3, 2));
    assert_eq!(refused(&[0, 3], &[1.0], &[]), length("list head_weight", 2, 1));
    assert_eq!(refused(&[0, 3], &[1.0; 2], &[1.0]), length("list copies", 3, 1));
    assert!(matches!(refused(&[0, 2, 1, 3], &[1.0; 2], &[]), ModelError::Index { .. }));
}

#[test]
fn gradients_clear_and_add_by_touched_rows() {
    let network = network::<f64>(tiny());
    let b = batch(&small(), &[(2, 1)], 1);
    let (_, one) = loss::<Cpu>(&network, &b, None);
    let (_, two) = loss::<Cpu>(&network, &batch(&small(), &[(1, 2)], 2), None);
    let mut sum = one.clone();
    sum.add(&two);
    for (((name, s, touched), (_, a, rows)), (_, b, _)) in sum.iter().zip(one.iter()).zip(two.iter()) {
        assert!(s.iter().zip(a).zip(b).all(|((s, a), b)| (s - (a + b)).abs() < 1e-12), "{name}");
        assert!(touched.is_none_or(|t| rows.unwrap().iter().all(|r| t.contains(r))), "{name}");
    }
    let squares: f64 = sum.iter().flat_map(|(_, g, _)| g).map(|g| g * g).sum();
    assert!((sum.norm() - squares.sqrt()).abs() < 1e-9 && sum.is_finite());
    sum.clear();
    assert_eq!(sum.norm(), 0.0);
    assert!(sum.iter().all(|(_, g, t)| g.iter().all(|g| *g == 0.0) && t.is_none_or(<[u32]>::is_empty)));
}
