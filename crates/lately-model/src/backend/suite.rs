//! The suite that every backend passes: each operation against the reference in f32, and against finite differences
//! in f64, on the cases of `lately-kernels`.

use lately_kernels::add_norm::Shape as NormShape;
use lately_kernels::attention::cases::Case as AttentionCase;
use lately_kernels::attention::{self, Shape as AttentionShape};
use lately_kernels::embedding::cases as embedding;
use lately_kernels::expand::cases as expand;
use lately_kernels::folded::Shape as FoldedShape;
use lately_kernels::shared::{self, Parts, Shape as SharedShape};
use lately_kernels::{Dropout, Real, add_norm, dense, fold, linear, pool, target};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Backend, Cpu, Scalar};

type Values<R> = Vec<Vec<R>>;
type Forward<R> = Box<dyn Fn(&Values<R>) -> Vec<R>>;
type Backwards<R> = Box<dyn Fn(&Values<R>, &[R]) -> Values<R>>;

/// One operation on one case: inputs, output, and from the output's gradient that of every input.
struct Problem<R> {
    name: String,
    inputs: Values<R>,
    forward: Forward<R>,
    backward: Backwards<R>,
}

fn values<R: Real>(n: usize, seed: u64) -> Vec<R> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| R::from_f32(random.random::<f32>() * 2.0 - 1.0)).collect()
}

fn inputs<R: Real>(lengths: &[usize]) -> Values<R> {
    lengths.iter().enumerate().map(|(i, n)| values(*n, 31 * i as u64 + *n as u64)).collect()
}

fn zeros<R: Real>(n: usize) -> Vec<R> {
    vec![R::ZERO; n]
}

/// Gradients that are overwritten start as this, so that a missing write is seen.
fn dirty<R: Real>(n: usize) -> Vec<R> {
    vec![R::from_f32(9.0); n]
}

fn offsets(lengths: &[u32]) -> Vec<u32> {
    std::iter::once(0).chain(lengths.iter().scan(0, |sum, n| Some(*sum + n).inspect(|s| *sum = *s))).collect()
}

fn problems<R: Real, B: Backend<R>>(long: bool) -> Vec<Problem<R>> {
    let mut all = Vec::new();
    linears::<R, B>(&mut all);
    for case in attention::cases::CASES {
        attentions::<R, B>(&mut all, *case);
        foldeds::<R, B>(&mut all, *case);
    }
    if long {
        attentions::<R, B>(&mut all, attention::cases::LONG);
        foldeds::<R, B>(&mut all, attention::cases::LONG);
    }
    folds::<R, B>(&mut all);
    shareds::<R, B>(&mut all);
    norms::<R, B>(&mut all);
    denses::<R, B>(&mut all);
    embeddings::<R, B>(&mut all);
    expansions::<R, B>(&mut all);
    targets::<R, B>(&mut all);
    for case in pool::cases::CASES {
        pools::<R, B>(&mut all, *case);
    }
    let masks = Dropout { seed: 5, rate: 0.4 };
    let apply = move |x: &[R]| {
        let mut x = x.to_vec();
        B::dropout(masks, 3, &mut x);
        x
    };
    all.push(Problem {
        name: "dropout".into(),
        inputs: inputs(&[40]),
        forward: Box::new(move |x| apply(&x[0])),
        backward: Box::new(move |_, dy| vec![apply(dy)]),
    });
    all
}

fn linears<R: Real, B: Backend<R>>(all: &mut Vec<Problem<R>>) {
    for (i, (s, relu)) in linear::cases::CASES.iter().copied().enumerate() {
        let bias = if i % 2 == 0 { s.outputs } else { 0 };
        let forward = move |x: &Values<R>| {
            let mut y = dirty(s.rows * s.outputs);
            B::linear(s, &x[0], &x[1], &x[2], relu, &mut y);
            y
        };
        let backward = move |x: &Values<R>, dy: &[R]| {
            let y = if relu { forward(x) } else { Vec::new() };
            let mut dx = if s.add { zeros(x[0].len()) } else { dirty(x[0].len()) };
            let (mut dw, mut db) = (zeros(x[1].len()), zeros(bias));
            B::linear_backward(s, &x[0], &x[1], &y, &mut dy.to_vec(), &mut dx, &mut dw, &mut db);
            vec![dx, dw, db]
        };
        all.push(Problem {
            name: format!("linear {s:?} relu {relu}"),
            inputs: inputs(&[s.rows * s.inputs, s.outputs * s.stride, bias]),
            forward: Box::new(forward),
            backward: Box::new(backward),
        });
    }
}

fn attentions<R: Real, B: Backend<R>>(all: &mut Vec<Problem<R>>, case: AttentionCase) {
    let offsets = offsets(case.lengths);
    let tokens = offsets.last().map_or(0, |t| *t as usize);
    let last = offsets.len().checked_sub(2).map_or(0, |i| offsets[i] as usize);
    let masked: Vec<bool> = (0..tokens).map(|t| t % 3 == 2 || t >= last).collect();
    let masked = if case.masked { masked } else { Vec::new() };
    let width = case.heads * case.head_width;
    let dropout = Dropout { seed: 11, rate: case.dropout };
    let run = move |x: &Values<R>, dy: Option<&[R]>| {
        let s = AttentionShape { offsets: &offsets, width, heads: case.heads, masked: &masked, dropout };
        let (mut p, mut y, mut scratch) = (dirty(s.probabilities()), dirty(tokens * width), Vec::new());
        B::attention(s, &x[0], &mut p, &mut y, &mut scratch);
        let Some(dy) = dy else { return y };
        let mut dx = dirty(tokens * 3 * width);
        B::attention_backward(s, &x[0], &p, dy, &mut dx, &mut scratch);
        dx
    };
    let again = run.clone();
    all.push(Problem {
        name: format!("{case:?}"),
        inputs: inputs(&[tokens * 3 * width]),
        forward: Box::new(move |x| run(x, None)),
        backward: Box::new(move |x, dy| vec![again(x, Some(dy))]),
    });
}

fn folds<R: Real, B: Backend<R>>(all: &mut Vec<Problem<R>>) {
    for d in fold::cases::CASES.iter().copied() {
        let forward = move |x: &Values<R>| {
            let mut y = dirty(2 * d * d + 2 * d);
            let (map, bias) = y.split_at_mut(2 * d * d);
            B::fold(d, &x[0], &x[1], &x[2], map, bias);
            y
        };
        let backward = move |x: &Values<R>, dy: &[R]| {
            let (mut dw, mut db, mut d_out) = (zeros(3 * d * d), zeros(3 * d), zeros(d * d));
            let weights = (&x[0][..], &x[1][..], &x[2][..]);
            B::fold_backward(d, weights, dy.split_at(2 * d * d), &mut dw, &mut db, &mut d_out);
            vec![dw, db, d_out]
        };
        let inputs = inputs(&[3 * d * d, 3 * d, d * d]);
        let (forward, backward) = (Box::new(forward), Box::new(backward));
        all.push(Problem { name: format!("fold {d}"), inputs, forward, backward });
    }
}

fn foldeds<R: Real, B: Backend<R>>(all: &mut Vec<Problem<R>>, case: AttentionCase) {
    let offsets = offsets(case.lengths);
    let tokens = offsets.last().map_or(0, |t| *t as usize);
    let last = offsets.len().checked_sub(2).map_or(0, |i| offsets[i] as usize);
    let masked: Vec<bool> = (0..tokens).map(|t| t % 3 == 2 || t >= last).collect();
    let masked = if case.masked { masked } else { Vec::new() };
    let (width, dropout) = (case.head_width, Dropout { seed: 11, rate: case.dropout });
    let run = move |x: &Values<R>, dy: Option<&[R]>| {
        let s = FoldedShape { offsets: &offsets, width, masked: &masked, dropout };
        let (mut p, mut y, mut scratch) = (dirty(s.probabilities()), dirty(tokens * width), Vec::new());
        B::folded(s, &x[0], &x[1], &mut p, &mut y, &mut scratch);
        let Some(dy) = dy else { return vec![y] };
        let (mut dx, mut d_qv) = (zeros(tokens * width), dirty(tokens * 2 * width));
        B::folded_backward(s, &x[0], &x[1], &p, dy, &mut d_qv, &mut dx, &mut scratch);
        vec![dx, d_qv]
    };
    let again = run.clone();
    all.push(Problem {
        name: format!("folded {case:?}"),
        inputs: inputs(&[tokens * width, tokens * 2 * width]),
        forward: Box::new(move |x| run(x, None).swap_remove(0)),
        backward: Box::new(move |x, dy| again(x, Some(dy))),
    });
}

fn shareds<R: Real, B: Backend<R>>(all: &mut Vec<Problem<R>>) {
    for case in shared::cases::CASES.iter().copied() {
        let (segments, (dk, dv)) = (case.segments, case.widths);
        let (tokens, count) = (*segments.offsets.last().unwrap() as usize, segments.source.len());
        let mut masked = vec![false; if case.masked { tokens } else { 0 }];
        if case.masked {
            for w in segments.offsets.windows(2) {
                (w[0]..w[1]).for_each(|t| masked[t as usize] = (t - w[0]) % 3 == 2);
            }
        }
        let dropout = Dropout { seed: 11, rate: case.dropout };
        let run = move |x: &Values<R>, dy: Option<&[R]>| {
            let s = SharedShape { segments, widths: case.widths, masked: &masked, dropout };
            let parts = Parts {
                token_query: &x[0][..],
                token_key: &x[1],
                token_value: &x[2],
                query: &x[3],
                value: &x[4],
            };
            let (mut p, mut y, mut scratch) = (dirty(s.probabilities()), dirty(tokens * dv), Vec::new());
            B::shared(s, parts, &mut p, &mut y, &mut scratch);
            let Some(dy) = dy else { return vec![y] };
            let mut d: Values<R> = x.iter().map(|x| zeros(x.len())).collect();
            (d[3], d[4]) = (dirty(x[3].len()), dirty(x[4].len()));
            let [token_query, token_key, token_value, query, value] = &mut d[..] else { unreachable!() };
            let mut parts_d =
                Parts { token_query: &mut token_query[..], token_key, token_value, query, value };
            B::shared_backward(s, parts, &p, dy, &mut parts_d, &mut scratch);
            d
        };
        let again = run.clone();
        let n = shared::cases::TOKENS;
        let mut inputs = inputs(&[n * dk, n * dk, n * dv, count * dk, count * dv]);
        for i in [0, 3] {
            inputs[i].iter_mut().for_each(|x| *x *= R::from_f32(case.size));
        }
        all.push(Problem {
            name: format!("shared {case:?}"),
            inputs,
            forward: Box::new(move |x| run(x, None).swap_remove(0)),
            backward: Box::new(move |x, dy| again(x, Some(dy))),
        });
    }
}

fn norms<R: Real, B: Backend<R>>(all: &mut Vec<Problem<R>>) {
    for (rows, w, rate) in add_norm::cases::CASES.iter().copied() {
        let n = rows * w;
        let s = NormShape { width: w, dropout: Dropout { seed: 3, rate } };
        let run = move |x: &Values<R>| {
            let (mut normed, mut rstd, mut y) = (dirty(n), dirty(rows), dirty(n));
            B::add_norm(s, &x[0], &x[1], &x[2], &x[3], &x[4], &mut normed, &mut rstd, &mut y);
            (normed, rstd, y)
        };
        let backward = move |x: &Values<R>, dy: &[R]| {
            let (normed, rstd, y) = run(x);
            let mut again = dirty(n);
            B::add_norm_output(w, &normed, &x[3], &x[4], &mut again);
            assert!(difference(&again, &y) < 1e-6, "{rows} x {w}: not the same output again");
            let (mut dx, mut branch) = (dirty(n), dirty(n));
            let (mut bias, mut dg, mut db) = (zeros(w), zeros(w), zeros(w));
            let (dx_, branch_) = (&mut dx[..], &mut branch[..]);
            B::add_norm_backward(s, &normed, &rstd, &x[3], dy, dx_, branch_, &mut bias, &mut dg, &mut db);
            vec![dx, branch, bias, dg, db]
        };
        all.push(Problem {
            name: format!("add_norm {rows} x {w}, dropout {rate}"),
            inputs: inputs(&[n, n, w, w, w]),
            forward: Box::new(move |x| run(x).2),
            backward: Box::new(backward),
        });
    }
}

fn denses<R: Real, B: Backend<R>>(all: &mut Vec<Problem<R>>) {
    for (s, relu, from) in dense::cases::CASES.iter().copied() {
        let forward = move |x: &Values<R>| {
            let mut y = dirty(s.outputs * s.rows);
            B::dense(s, &x[0], &x[1], &x[2], relu, &mut y);
            y
        };
        let backward = move |x: &Values<R>, dy: &[R]| {
            let mut dy = dy.to_vec();
            if relu {
                B::relu_backward(&forward(x), &mut dy);
            }
            let (mut dx, mut dw, mut db) = (dirty(x[0].len()), zeros(x[1].len()), zeros(s.outputs));
            let (first, second) = dx.split_at_mut(from * s.rows);
            B::dense_input(s, 0..from, &x[1], &dy, first);
            B::dense_input(s, from..s.inputs, &x[1], &dy, second);
            B::dense_weight(s, &x[0], &dy, &mut dw, &mut db);
            vec![dx, dw, db]
        };
        all.push(Problem {
            name: format!("dense {s:?} relu {relu}"),
            inputs: inputs(&[s.inputs * s.rows, s.outputs * s.inputs, s.outputs]),
            forward: Box::new(forward),
            backward: Box::new(backward),
        });
    }
    for (rows, columns) in dense::cases::TRANSPOSED.iter().copied() {
        let turn = move |rows: usize, columns: usize, x: &[R]| {
            let mut y = dirty(rows * columns);
            B::transpose(rows, columns, x, &mut y);
            y
        };
        all.push(Problem {
            name: format!("transpose {rows} x {columns}"),
            inputs: inputs(&[rows * columns]),
            forward: Box::new(move |x| turn(rows, columns, &x[0])),
            backward: Box::new(move |_, dy| vec![turn(columns, rows, dy)]),
        });
    }
    let n = 37;
    all.push(Problem {
        name: "gate".into(),
        inputs: inputs(&[n, n, n]),
        forward: Box::new(move |x| {
            let mut y = dirty(n);
            B::gate(&x[0], &x[1], &x[2], &mut y);
            y
        }),
        backward: Box::new(move |x, dy| {
            let (mut inner, mut dx0) = (x[1].clone(), zeros(n));
            B::gate_backward(&x[0], &mut inner, dy, &mut dx0);
            vec![dx0, inner, dy.to_vec()]
        }),
    });
}

fn embeddings<R: Real, B: Backend<R>>(all: &mut Vec<Problem<R>>) {
    for s in embedding::CASES.iter().copied() {
        let n = s.entity.len() * s.stride;
        let forward = move |x: &Values<R>| {
            let mut y = zeros(n);
            B::embedding(s, &x[0], embedding::INDICES, &mut y);
            y
        };
        let backward = move |x: &Values<R>, dy: &[R]| {
            let mut table = zeros(x[0].len());
            let mut touched = [false; embedding::TABLE];
            let mut touch = |row: u32| touched[row as usize] = true;
            B::embedding_backward(s, embedding::INDICES, dy, false, &mut table, &mut touch);
            for (row, touched) in table.chunks(s.dim).zip(touched) {
                assert!(touched || row.iter().all(|x| *x == R::ZERO), "an untouched row has a gradient");
            }
            vec![table]
        };
        all.push(Problem {
            name: format!("embedding {s:?}"),
            inputs: inputs(&[embedding::TABLE * s.dim]),
            forward: Box::new(forward),
            backward: Box::new(backward),
        });
    }
}

fn expansions<R: Real, B: Backend<R>>(all: &mut Vec<Problem<R>>) {
    for s in expand::CASES.iter().copied() {
        let (tokens, segments) = (*s.offsets.last().unwrap() as usize, s.source.len());
        for (da, dc) in [(3, 2), (4, 0)] {
            let c: Vec<R> = values(segments * dc, 77);
            let forward = move |x: &Values<R>| {
                let mut y = dirty(tokens * (da + dc));
                B::expand(s, (da, dc), &x[0], &c, &mut y);
                y
            };
            let backward = move |x: &Values<R>, dy: &[R]| {
                let mut d = zeros(x[0].len());
                B::expand_collect(s, da + dc, da, dy, &mut d);
                vec![d]
            };
            all.push(Problem {
                name: format!("expand {s:?} {da} {dc}"),
                inputs: inputs(&[expand::TOKENS * da]),
                forward: Box::new(forward),
                backward: Box::new(backward),
            });
        }
        for (w, with) in [(5, true), (19, false)] {
            let c = if with { segments * w } else { 0 };
            let forward = move |x: &Values<R>| {
                let mut y = dirty(tokens * w);
                B::expand_add(s, w, &x[0], &x[1], &mut y);
                y
            };
            let backward = move |x: &Values<R>, dy: &[R]| {
                let (mut da, mut dc) = (zeros(x[0].len()), dirty(c));
                B::expand_collect(s, w, w, dy, &mut da);
                if with {
                    B::expand_sum(s, w, dy, &mut dc);
                }
                vec![da, dc]
            };
            all.push(Problem {
                name: format!("expand_add {s:?} {w}"),
                inputs: inputs(&[expand::TOKENS * w, c]),
                forward: Box::new(forward),
                backward: Box::new(backward),
            });
        }
    }
}

fn targets<R: Real, B: Backend<R>>(all: &mut Vec<Problem<R>>) {
    for (s, widths) in expand::CASES.iter().flat_map(|s| target::cases::CASES.iter().map(|w| (*s, *w))) {
        let (tokens, segments) = (*s.offsets.last().unwrap() as usize, s.source.len());
        let (width, pair) = (widths.0 + widths.1, target::pair_width(widths));
        let candidate: Vec<R> = values(segments * widths.1, 77);
        let again = candidate.clone();
        let forward = move |x: &Values<R>| {
            let mut y = dirty(tokens * pair);
            B::pairs(s, widths, &x[0], &candidate, &mut y);
            y
        };
        let backward = move |x: &Values<R>, dy: &[R]| {
            let mut d = zeros(x[0].len());
            B::pairs_backward(s, widths, &again, dy, &mut d);
            vec![d]
        };
        all.push(Problem {
            name: format!("pairs {s:?} {widths:?}"),
            inputs: inputs(&[expand::TOKENS * width]),
            forward: Box::new(forward),
            backward: Box::new(backward),
        });
        let forward = move |x: &Values<R>| {
            let mut y = dirty(segments * width);
            B::weighted(s, width, &x[0], &x[1], &mut y);
            y
        };
        let backward = move |x: &Values<R>, dy: &[R]| {
            let (mut d_token, mut d_weight) = (zeros(x[0].len()), dirty(tokens));
            B::weighted_backward(s, width, &x[0], &x[1], dy, &mut d_token, &mut d_weight);
            vec![d_token, d_weight]
        };
        all.push(Problem {
            name: format!("weighted {s:?} x {width}"),
            inputs: inputs(&[expand::TOKENS * width, tokens]),
            forward: Box::new(forward),
            backward: Box::new(backward),
        });
    }
}

fn pools<R: Real, B: Backend<R>>(all: &mut Vec<Problem<R>>, (lengths, w, k): (&'static [u32], usize, usize)) {
    let (s, tokens) = (lengths.len(), lengths.iter().sum::<u32>() as usize);
    let mut push = |what: &str, forward: Forward<R>, backward: Backwards<R>| {
        let name = format!("{what} {lengths:?} x {w}, k {k}");
        all.push(Problem { name, inputs: inputs(&[tokens * w]), forward, backward });
    };
    let max = move |x: &Values<R>| {
        let (mut y, mut argmax) = (dirty(s * w), vec![3; s * w]);
        B::max_pool(&offsets(lengths), w, &x[0], &mut y, &mut argmax);
        (y, argmax)
    };
    let max_backward = move |x: &Values<R>, dy: &[R]| {
        let mut dx = zeros(tokens * w);
        B::max_pool_backward(w, &max(x).1, dy, &mut dx);
        vec![dx]
    };
    push("max_pool", Box::new(move |x| max(x).0), Box::new(max_backward));
    let (stride, offset) = (k * w + 3, 2);
    let first = move |x: &Values<R>| {
        let mut y = zeros(s * stride);
        B::first_k(&offsets(lengths), w, k, &x[0], &mut y, stride, offset);
        y
    };
    let first_backward = move |_: &Values<R>, dy: &[R]| {
        let mut dx = zeros(tokens * w);
        B::first_k_backward(&offsets(lengths), w, k, dy, stride, offset, &mut dx);
        vec![dx]
    };
    push("first_k", Box::new(first), Box::new(first_backward));
    let mean = move |x: &Values<R>| {
        let mut y = dirty(s * w);
        B::mean_pool(&offsets(lengths), w, &x[0], &mut y);
        y
    };
    let mean_backward = move |_: &Values<R>, dy: &[R]| {
        let mut dx = zeros(tokens * w);
        B::mean_pool_backward(&offsets(lengths), w, dy, &mut dx);
        vec![dx]
    };
    push("mean_pool", Box::new(mean), Box::new(mean_backward));
}

/// Largest difference, relative to the largest value or 1.
fn difference<R: Real>(a: &[R], b: &[R]) -> f64 {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().map(|x| x.to_f64().abs()).fold(1.0, f64::max);
    let worst = |m: f64, d: f64| if d.is_nan() { f64::INFINITY } else { m.max(d) };
    a.iter().zip(b).map(|(a, b)| (a.to_f64() - b.to_f64()).abs()).fold(0.0, worst) / scale
}

/// Every operation gives the reference's results in f32, forward and backward.
pub(crate) fn agrees_with_reference<B: Backend<f32>>() {
    for (got, want) in problems::<f32, B>(true).iter().zip(&problems::<f32, Scalar>(true)) {
        let (y, expected) = ((got.forward)(&got.inputs), (want.forward)(&want.inputs));
        let error = difference(&y, &expected);
        assert!(error < 1e-5, "{}: output differs by {error}", got.name);
        let dy: Vec<f32> = values(y.len(), 99);
        let gradients = (got.backward)(&got.inputs, &dy);
        for (i, (a, b)) in gradients.iter().zip((want.backward)(&want.inputs, &dy)).enumerate() {
            let error = difference(a, &b);
            assert!(error < 1e-5, "{}: gradient {i} differs by {error}", got.name);
        }
    }
}

/// Every gradient is that of its forward, by central differences in f64.
pub(crate) fn agrees_with_finite_differences<B: Backend<f64>>() {
    const STEP: f64 = 1e-5;
    for problem in problems::<f64, B>(false) {
        let mut x = problem.inputs.clone();
        let dy: Vec<f64> = values((problem.forward)(&x).len(), 99);
        let gradients = (problem.backward)(&x, &dy);
        assert_eq!(gradients.len(), x.len(), "{}", problem.name);
        let along = |x: &Values<f64>| (problem.forward)(x).iter().zip(&dy).map(|(y, d)| y * d).sum::<f64>();
        for (i, gradient) in gradients.iter().enumerate() {
            let mut expected = Vec::new();
            for j in 0..x[i].len() {
                let kept = x[i][j];
                x[i][j] = kept + STEP;
                let above = along(&x);
                x[i][j] = kept - STEP;
                expected.push((above - along(&x)) / (2.0 * STEP));
                x[i][j] = kept;
            }
            let error = difference(gradient, &expected);
            assert!(error < 1e-7, "{}: gradient {i} differs by {error}", problem.name);
        }
    }
}

/// The tests of one backend.
macro_rules! backend_suite {
    ($name:ident, $backend:ty) => {
        mod $name {
            #[test]
            fn every_operation_agrees_with_the_reference() {
                super::agrees_with_reference::<$backend>();
            }
            #[test]
            fn every_gradient_agrees_with_finite_differences() {
                super::agrees_with_finite_differences::<$backend>();
            }
        }
    };
}

backend_suite!(cpu, super::Cpu);
backend_suite!(scalar, super::Scalar);

#[test]
fn the_padding_row_gets_no_gradient() {
    let s = embedding::CASES[1];
    let dy: Vec<f64> = vec![1.0; s.entity.len() * s.stride];
    let mut table = vec![0.0; embedding::TABLE * s.dim];
    let mut rows = Vec::new();
    Cpu::embedding_backward(s, embedding::INDICES, &dy, true, &mut table, &mut |r| rows.push(r));
    assert!(table[..s.dim].iter().all(|x| *x == 0.0) && table[s.dim..].iter().any(|x| *x != 0.0));
    assert!(!rows.contains(&0) && rows.contains(&3), "{rows:?}");
}
