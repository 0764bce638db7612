//! Sums of gradients, laid out like the parameters.

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

impl<R: Real> Gradients<R> {
    pub(crate) fn of(parameters: &[Parameter<R>]) -> Self {
        let touched = |p: &Parameter<R>| Touched {
            rows: Vec::new(),
            seen: vec![false; p.shape.first().copied().unwrap_or(0)],
            width: p.shape.get(1).copied().unwrap_or(1),
        };
        let entries = parameters.iter().map(|p| Entry {
            name: p.name.clone(),
            data: vec![R::ZERO; p.data.len()],
            touched: p.table.then(|| touched(p)),
        });
        Self { entries: entries.collect() }
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
        for entry in &mut self.entries {
            match &mut entry.touched {
                None => entry.data.fill(R::ZERO),
                Some(t) => {
                    for row in t.rows.drain(..) {
                        let at = row as usize * t.width;
                        entry.data[at..at + t.width].fill(R::ZERO);
                        t.seen[row as usize] = false;
                    }
                }
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

    /// Multiplies all by a factor.
    pub fn scale(&mut self, factor: R) {
        let times = |x: &mut [R]| x.iter_mut().for_each(|x| *x *= factor);
        for entry in &mut self.entries {
            match &entry.touched {
                None => times(&mut entry.data),
                Some(t) => {
                    t.rows.iter().for_each(|r| times(&mut entry.data[*r as usize * t.width..][..t.width]));
                }
            }
        }
    }

    /// Euclidean norm over all parameters; NaN or infinite where a gradient is.
    pub fn norm(&self) -> f64 {
        let squares = |x: &[R]| x.iter().map(|x| x.to_f64() * x.to_f64()).sum::<f64>();
        let of = |e: &Entry<R>| match &e.touched {
            None => squares(&e.data),
            Some(t) => t.rows.iter().map(|r| squares(&e.data[*r as usize * t.width..][..t.width])).sum(),
        };
        self.entries.iter().map(of).sum::<f64>().sqrt()
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
