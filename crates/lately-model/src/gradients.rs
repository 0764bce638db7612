//! Sums of gradients, laid out like the parameters.

use std::ops::Range;

use lately_kernels::Real;

use crate::Model;
use crate::plan::Parameter;

/// Which rows of a table have a gradient.
#[derive(Debug, Clone, Default)]
struct Touched {
    rows: Vec<u32>,
    seen: Vec<bool>,
    width: usize,
}

#[derive(Debug, Clone)]
struct Entry<R> {
    name: String,
    data: Vec<R>,
    touched: Option<Touched>,
}

/// Gradient of every parameter, added up over calls until [`Gradients::clear`].
///
/// Each is held densely. For hashed embedding tables the rows that are not zero are listed as well, so that clearing,
/// adding and an optimiser's step cost the rows that a batch touched, not the table.
#[derive(Debug, Clone, Default)]
pub struct Gradients<R = f32> {
    entries: Vec<Entry<R>>,
}

/// One parameter's gradient.
#[derive(Debug)]
pub struct GradientOf<'a, R = f32> {
    /// The parameter's name.
    pub name: &'a str,
    /// Its gradient, same length as the parameter.
    pub data: &'a mut [R],
    /// For a table the rows that may differ from zero, each once, in the order of their first touch; `None` where
    /// every element may.
    pub touched: Option<&'a [u32]>,
}

impl Gradients<f32> {
    /// All zero.
    pub fn zeros(model: &Model) -> Self {
        Self::of(model.parameters())
    }
}

impl<R> Gradients<R> {
    pub(crate) fn none() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<R: Real> Gradients<R> {
    pub(crate) fn of(parameters: &[Parameter<R>]) -> Self {
        Self::of_range(parameters, 0..parameters.len())
    }

    /// Of a range of the parameters; the others' are empty.
    pub(crate) fn of_range(parameters: &[Parameter<R>], range: Range<usize>) -> Self {
        let touched = |p: &Parameter<R>| Touched {
            rows: Vec::new(),
            seen: vec![false; p.shape.first().copied().unwrap_or(0)],
            width: p.shape.get(1).copied().unwrap_or(1),
        };
        let entries = parameters.iter().enumerate().map(|(i, p)| Entry {
            name: p.name.clone(),
            data: vec![R::ZERO; if range.contains(&i) { p.data.len() } else { 0 }],
            touched: (p.table && range.contains(&i)).then(|| touched(p)),
        });
        Self { entries: entries.collect() }
    }

    /// Whether it is what [`Gradients::of_range`] gives, but for the values.
    pub(crate) fn fits(&self, parameters: &[Parameter<R>], range: &Range<usize>) -> bool {
        let length = |(i, p): (usize, &Parameter<R>)| if range.contains(&i) { p.data.len() } else { 0 };
        self.entries.len() == parameters.len()
            && self
                .entries
                .iter()
                .zip(parameters.iter().enumerate().map(length))
                .all(|(e, n)| e.data.len() == n)
    }

    /// Bytes that it holds, once every row of every table has been touched.
    pub fn bytes(&self) -> usize {
        let of = |e: &Entry<R>| {
            let rows = e.touched.as_ref().map_or(0, |t| t.seen.len());
            size_of::<R>() * e.data.len() + (size_of::<bool>() + size_of::<u32>()) * rows
        };
        self.entries.iter().map(of).sum()
    }

    /// Sets all to zero.
    pub fn clear(&mut self) {
        for entry in self.entries.iter_mut().filter(|e| e.touched.is_none()) {
            entry.data.fill(R::ZERO);
        }
        self.clear_touched();
    }

    /// Sets the tables to zero.
    pub(crate) fn clear_touched(&mut self) {
        for entry in &mut self.entries {
            let Some(t) = &mut entry.touched else { continue };
            for row in t.rows.drain(..) {
                let at = row as usize * t.width;
                entry.data[at..at + t.width].fill(R::ZERO);
                t.seen[row as usize] = false;
            }
        }
    }

    /// Adds another sum over the same model. For a deterministic result add threads in a fixed order.
    ///
    /// # Panics
    /// Where the other one belongs to a model of another shape.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.entries.len(), other.entries.len(), "gradients of different models");
        for (mine, theirs) in self.entries.iter_mut().zip(&other.entries) {
            if theirs.data.is_empty() {
                continue; // a part of the model has none of this
            }
            assert_eq!(mine.data.len(), theirs.data.len(), "gradients of different models: {}", mine.name);
            match (&mut mine.touched, &theirs.touched) {
                (Some(t), Some(o)) => {
                    for row in &o.rows {
                        t.touch(*row);
                        let at = *row as usize * t.width;
                        plus(&mut mine.data[at..at + t.width], &theirs.data[at..at + t.width]);
                    }
                }
                _ => plus(&mut mine.data, &theirs.data),
            }
        }
    }

    /// Euclidean norm over all parameters; NaN or infinite where a gradient is.
    pub fn norm(&self) -> f64 {
        self.parts().map(R::squares).sum::<f64>().sqrt()
    }

    /// All that may differ from zero, in fixed order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[R]> {
        self.entries.iter().flat_map(|e| {
            let rows = e.touched.as_ref().map_or(&[][..], |t| &t.rows);
            let width = e.touched.as_ref().map_or(0, |t| t.width);
            let rows = rows.iter().map(move |r| &e.data[*r as usize * width..][..width]);
            e.touched.is_none().then_some(e.data.as_slice()).into_iter().chain(rows)
        })
    }

    /// Whether every gradient is a finite number (and their norm too).
    pub fn is_finite(&self) -> bool {
        self.norm().is_finite()
    }

    /// Every parameter's gradient, in the order of the model's parameters.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = GradientOf<'_, R>> {
        self.entries.iter_mut().map(|e| GradientOf {
            name: &e.name,
            data: &mut e.data,
            touched: e.touched.as_ref().map(|t| t.rows.as_slice()),
        })
    }

    /// Every parameter's (name, gradient, touched rows), in the order of the model's parameters.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[R], Option<&[u32]>)> {
        self.entries
            .iter()
            .map(|e| (e.name.as_str(), e.data.as_slice(), e.touched.as_ref().map(|t| t.rows.as_slice())))
    }

    /// Gradients of a weight and of the bias that follows it.
    pub(crate) fn pair(&mut self, weight: usize) -> (&mut [R], &mut [R]) {
        let (left, right) = self.entries.split_at_mut(weight + 1);
        (&mut left[weight].data, &mut right[0].data)
    }

    /// Gradients of three parameters.
    pub(crate) fn three(&mut self, ids: [usize; 3]) -> [&mut [R]; 3] {
        let entries = self.entries.get_disjoint_mut(ids).expect("three different parameters of the plan");
        entries.map(|entry| entry.data.as_mut_slice())
    }

    /// A table's gradient and what notes its touched rows.
    pub(crate) fn table(&mut self, id: usize) -> (&mut [R], impl FnMut(u32)) {
        let entry = &mut self.entries[id];
        let touched = &mut entry.touched;
        let touch = move |row: u32| {
            if let Some(t) = touched {
                t.touch(row);
            }
        };
        (&mut entry.data, touch)
    }
}

impl Touched {
    fn touch(&mut self, row: u32) {
        let seen = &mut self.seen[row as usize];
        if !*seen {
            *seen = true;
            self.rows.push(row);
        }
    }
}

fn plus<R: Real>(a: &mut [R], b: &[R]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += *b);
}
