//! What other devices take from a model, multiplied out as plainly as can be, against the model's own logits.

use std::sync::Arc;

use super::score::configs;
use super::world::{batch, small, tiny};
use crate::device::{
    AffinityParts, EncoderParts, ItemStaging, LayerParts, LinearParts, ServingParts, Staging, TokenKind,
    TransformerParts, admitted,
};
use crate::{Encoder, Model, ModelConfig, Scratch};

fn linear(map: &LinearParts, x: &[f32]) -> Vec<f32> {
    let rows = map.weight.chunks_exact(map.inputs());
    rows.zip(&map.bias).map(|(w, b)| b + dot(w, x)).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn relu(x: Vec<f32>) -> Vec<f32> {
    x.into_iter().map(|x| x.max(0.0)).collect()
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn norm(x: &mut [f32], [gamma, beta]: &[Vec<f32>; 2]) {
    let n = x.len() as f32;
    let mean = x.iter().sum::<f32>() / n;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n;
    for ((x, g), b) in x.iter_mut().zip(gamma).zip(beta) {
        *x = (*x - mean) / (variance + 1e-5).sqrt() * g + b;
    }
}

fn layer(parts: &LayerParts, masked: &[bool], tokens: &mut [Vec<f32>]) {
    let d = parts.out_bias.len();
    let projected: Vec<_> = tokens.iter().map(|x| linear(&parts.attention, x)).collect();
    let before = tokens.to_vec();
    for (x, of_query) in tokens.iter_mut().zip(&projected) {
        let open = |j: &usize| !masked.get(*j).is_some_and(|m| *m);
        let logit = |j: usize| dot(&of_query[..d], &before[j]);
        let largest = (0..before.len()).filter(open).map(logit).fold(f32::NEG_INFINITY, f32::max);
        let weight = |j: usize| (logit(j) - largest).exp();
        let total: f32 = (0..before.len()).filter(open).map(weight).sum();
        for j in (0..before.len()).filter(open) {
            let p = weight(j) / total;
            x.iter_mut().zip(&projected[j][d..]).for_each(|(x, v)| *x += p * v);
        }
        add(x, &parts.out_bias);
        norm(x, &parts.norm1);
        let more = linear(&parts.linear2, &relu(linear(&parts.linear1, x)));
        add(x, &more);
        norm(x, &parts.norm2);
    }
}

fn encode(parts: &TransformerParts, tokens: &[f32], masked: &[bool], candidate: &[f32]) -> Vec<f32> {
    let rows = tokens.chunks_exact(parts.token);
    let mut x: Vec<Vec<f32>> = rows.map(|a| [a, candidate].concat()).collect();
    if x.is_empty() {
        return vec![0.0; parts.output];
    }
    parts.layers.iter().for_each(|l| layer(l, masked, &mut x));
    let mut out = Vec::new();
    if let Some(pool) = &parts.pool {
        let largest = |f: usize| x.iter().map(|x| x[f]).fold(f32::NEG_INFINITY, f32::max);
        out.extend(linear(pool, &(0..parts.token + parts.candidate).map(largest).collect::<Vec<_>>()));
    }
    x.iter().take(parts.first_k).for_each(|x| out.extend_from_slice(x));
    out.resize(parts.output, 0.0);
    out
}

/// The affinity block of a candidate to tokens' items.
fn affinity(parts: &AffinityParts, items: &[&[f32]], kinds: &[TokenKind], candidate: &[f32]) -> Vec<f32> {
    let length = |x: &[f32]| dot(x, x).sqrt();
    let mut out = Vec::new();
    for action in 0..parts.actions {
        for all in [false, true] {
            let of = items.iter().zip(kinds).filter(|(item, kind)| {
                usize::from(kind.action) == action && (all || kind.recent) && length(item) > 0.0
            });
            let cosines: Vec<f32> =
                of.map(|(item, _)| dot(item, candidate) / (length(item) * length(candidate))).collect();
            let open = !cosines.is_empty() && length(candidate) > 0.0;
            let largest = cosines.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mean = cosines.iter().sum::<f32>() / cosines.len() as f32;
            out.extend([largest, mean].map(|x| if open { parts.scale * x } else { 0.0 }));
        }
    }
    assert_eq!(out.len(), parts.width());
    out
}

fn top(parts: &ServingParts, inputs: &[f32]) -> Vec<f32> {
    let base = parts.project.as_ref().map_or_else(|| inputs.to_vec(), |p| linear(p, inputs));
    let mut x = base.clone();
    for cross in &parts.cross {
        let inner = linear(cross, &x);
        x.iter_mut().zip(&base).zip(inner).for_each(|((x, x0), inner)| *x += x0 * inner);
    }
    for hidden in &parts.mlp {
        x = relu(linear(hidden, &x));
    }
    linear(&parts.head, &x)
}

/// Logits of some rows, from parts and staging alone; none where the encoder has no form for devices.
fn multiplied(
    model: &Model,
    b: &lately_features::FeatureBatch,
    rows: std::ops::Range<usize>,
) -> Option<Vec<f32>> {
    let parts = ServingParts::of(model);
    let b = admitted(model, b).unwrap();
    let mut staging = Staging::default();
    staging.fill(model, &b, 0..1); // memory that held something else
    let all: Vec<u32> = rows.clone().map(|row| row as u32).collect();
    let staged = staging.fill(model, &b, rows);
    let mut items = ItemStaging::default();
    items.fill(model, &b, &[0, 1]);
    let items = items.fill(model, &b, &all);
    let (shared, own) = (parts.request.len(), parts.inputs - parts.request.end);
    let mut logits = Vec::new();
    for (r, request) in staged.requests.iter().enumerate() {
        for row in request.rows.clone() {
            let mut inputs = Vec::new();
            match &parts.encoder {
                EncoderParts::Other => return None,
                EncoderParts::None => assert!(staged.tokens.is_empty() && request.tokens.is_empty()),
                EncoderParts::Transformer(encoder) => {
                    let tokens = &staged.tokens
                        [request.tokens.start * encoder.token..request.tokens.end * encoder.token];
                    let width = encoder.candidate;
                    let candidate = &items.candidates[row * width..(row + 1) * width];
                    inputs = encode(encoder, tokens, &staged.masked[request.masked.clone()], candidate);
                    if let Some(parts) = &parts.affinity {
                        let rows = tokens.chunks_exact(encoder.token);
                        let of_tokens: Vec<_> = rows.map(|token| &token[encoder.token - width..]).collect();
                        let kinds = &staged.kinds[request.tokens.clone()];
                        inputs.extend(affinity(parts, &of_tokens, kinds, candidate));
                    }
                }
            }
            assert_eq!(inputs.len(), parts.request.start);
            inputs.extend_from_slice(&staged.columns[r * shared..(r + 1) * shared]);
            inputs.extend_from_slice(&items.columns[row * own..(row + 1) * own]);
            let mut z = top(&parts, &inputs);
            if let Some(rate) = staged.rate.chunks_exact(z.len()).nth(r) {
                add(&mut z, rate);
            }
            logits.extend(z);
        }
    }
    Some(logits)
}

#[test]
fn parts_and_staging_are_the_whole_model() {
    let schema = small();
    let b = batch(&schema, &[(5, 3), (0, 2), (1, 1), (3, 0), (4, 4)], 2);
    let mut all: Vec<_> = configs().into_iter().map(|c| ModelConfig { attention_heads: 1, ..c }).collect();
    all.push(ModelConfig { encoder: Encoder::None, ..tiny() });
    all.push(ModelConfig { attention_heads: 1, rate_hidden: 5, cross_width: 6, ..tiny() });
    let mut compared = 0;
    for config in all {
        let mut model = Model::new(config.clone(), &schema, 1).unwrap();
        for (name, data) in model.parameters_mut().filter(|(name, _)| name.ends_with("bias")) {
            data.iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x += (i % 7) as f32 * 0.1 - name.len() as f32 * 0.01);
        }
        let model = Arc::new(model);
        let want = model.score(&b, &mut Scratch::default()).unwrap();
        for rows in [0..10, 2..7, 9..10] {
            let Some(got) = multiplied(&model, &b, rows.clone()) else { continue };
            let want = &want[rows.start * model.heads()..rows.end * model.heads()];
            let worst =
                got.iter().zip(want).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max);
            assert!(got.len() == want.len() && worst < 1e-4, "{worst} {rows:?} {config:?}");
            compared += 1;
        }
    }
    assert!(compared >= 15, "{compared}");
}
