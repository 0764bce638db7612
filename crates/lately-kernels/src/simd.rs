//! Run-time choice of the vector width for plain loops, without code of our own for any instruction set.

use crate::Real;

/// Runs `work`, compiled once for each of AVX-512, AVX2 and the baseline, in the widest form this machine has.
/// Mark the closure and what it calls `#[inline(always)]`, else only the baseline form exists.
#[inline(always)]
pub fn wide<T>(work: impl FnOnce() -> T) -> T {
    struct Work<F>(F);
    impl<T, F: FnOnce() -> T> pulp::NullaryFnOnce for Work<F> {
        type Output = T;
        #[inline(always)]
        fn call(self) -> T {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Work(work))
}

/// Independent partial sums: floating-point addition may not be reordered by the compiler, so the lanes that it needs
/// to vectorise a reduction are written out.
pub(crate) const LANES: usize = 16;

/// Elements `at..` of a slice, as many as a vector has, 0 past its end. Loops over several slices go by such blocks: of
/// slices LLVM must first show that they do not overlap, row by row, of arrays it knows.
#[inline(always)]
pub(crate) fn load<R: Real>(x: &[R], at: usize) -> [R; LANES] {
    if let Some(block) = x.get(at..at + LANES) {
        let mut out = [R::ZERO; LANES];
        out.copy_from_slice(block);
        return out;
    }
    let mut out = [R::ZERO; LANES];
    out.iter_mut().zip(&x[at..]).for_each(|(o, x)| *o = *x);
    out
}

/// Writes a block to where [`load`] reads it.
#[inline(always)]
pub(crate) fn store<R: Real>(block: [R; LANES], x: &mut [R], at: usize) {
    if let Some(x) = x.get_mut(at..at + LANES) {
        return x.copy_from_slice(&block);
    }
    x[at..].iter_mut().zip(block).for_each(|(x, b)| *x = b);
}

/// Sum of a block's elements.
#[inline(always)]
pub(crate) fn total<R: Real>(block: [R; LANES]) -> R {
    fold(block, |a, b| a + b)
}

/// Sum of `f(x, y)` over two slices of one length.
#[inline(always)]
pub(crate) fn sum2<R: Real>(x: &[R], y: &[R], f: impl Fn(R, R) -> R) -> R {
    let y = &y[..x.len()];
    let whole = x.len() - x.len() % LANES;
    let mut rest = R::ZERO;
    for (a, b) in x[whole..].iter().zip(&y[whole..]) {
        rest += f(*a, *b);
    }
    let mut lanes = [R::ZERO; LANES];
    for at in (0..whole).step_by(LANES) {
        let (a, b) = (load(x, at), load(y, at));
        for i in 0..LANES {
            lanes[i] += f(a[i], b[i]);
        }
    }
    fold(lanes, |a, b| a + b) + rest
}

/// Sum of a slice.
#[inline(always)]
pub(crate) fn sum<R: Real>(x: &[R]) -> R {
    sum2(x, x, |a, _| a)
}

/// Largest element; minus infinity of nothing.
#[inline(always)]
pub(crate) fn max<R: Real>(x: &[R]) -> R {
    let whole = x.len() - x.len() % LANES;
    let mut rest = R::NEG_INFINITY;
    for a in &x[whole..] {
        rest = rest.larger(*a);
    }
    let mut lanes = [R::NEG_INFINITY; LANES];
    for at in (0..whole).step_by(LANES) {
        let a = load(x, at);
        for i in 0..LANES {
            lanes[i] = lanes[i].larger(a[i]);
        }
    }
    fold(lanes, R::larger).larger(rest)
}

#[inline(always)]
fn fold<R: Real>(lanes: [R; LANES], f: impl Fn(R, R) -> R) -> R {
    // Hides the tree below from the loop before it: LLVM would else lay the loop's vectors out for the tree, as eight of two
    // lanes each.
    let mut lanes = std::hint::black_box(lanes);
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}
