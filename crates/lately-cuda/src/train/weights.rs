//! Parameters, their gradients and moments, and the rounded copies that products read.

use lately_model::training::{Moments, TrainingPlan};
use lately_model::{Model, ModelError};

use super::tape::stride;
use crate::CudaError;
use crate::driver::Driver;

/// No place, as the kernels write it.
pub(super) const NONE: u32 = u32::MAX;
/// Words of a parameter's record, see `adam` in step.cu.
const RECORD: usize = 6;
/// Parameters start at 16 bytes.
const ALIGNMENT: usize = 4;

/// Where a parameter is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// First number of it, of its gradient and of its moments.
    pub(super) start: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// First word of its copy for products, and the stride of its rows.
    pub(super) copy: Option<(usize, usize)>,
    /// First mark of its rows.
    pub(super) touched: Option<usize>,
}

impl Place {
    fn numbers(&self) -> usize {
        self.rows * self.columns
    }
}

/// All of them on a device.
pub(super) struct Weights<D: Driver> {
    pub(super) places: Vec<Place>,
    /// Numbers of all parameters, gaps included.
    pub(super) numbers: usize,
    pub(super) marks: usize,
    /// Six words a parameter.
    pub(super) records: D::Memory,
    pub(super) weight: D::Memory,
    /// Laid out as the weights are, and behind it the marks of tables' rows: a group adds up both at once.
    pub(super) gradient: D::Memory,
    pub(super) moments: [D::Memory; 2],
    pub(super) copies: D::Memory,
}

impl<D: Driver> Weights<D> {
    /// Of a model and a run's moments. The copies are not made yet.
    pub(super) fn new(
        driver: &D,
        plan: &TrainingPlan,
        model: &Model,
        moments: &Moments,
        split: bool,
    ) -> Result<Self, CudaError> {
        let (mut numbers, mut copies, mut marks) = (0, 0, 0);
        let take = |total: &mut usize, count: usize| {
            *total += count.next_multiple_of(ALIGNMENT);
            *total - count.next_multiple_of(ALIGNMENT)
        };
        let places = plan.parameters.iter().map(|p| {
            let product = p.matrix && !p.table;
            let words = p.rows * stride(p.columns) / if split { 1 } else { 2 };
            Place {
                start: take(&mut numbers, p.rows * p.columns),
                rows: p.rows,
                columns: p.columns,
                copy: product.then(|| (take(&mut copies, words), stride(p.columns))),
                touched: p.table.then(|| take(&mut marks, p.rows)),
            }
        });
        let places: Vec<Place> = places.collect();
        let record = |p: &Place| {
            let (copy, stride) = p.copy.map_or((NONE, 0), |(at, stride)| (at as u32, stride as u32));
            let touched = p.touched.map_or(NONE, |at| at as u32);
            [p.start as u32, p.rows as u32, p.columns as u32, copy, stride, touched]
        };
        let records: Vec<u32> = places.iter().flat_map(record).collect();
        debug_assert_eq!(records.len(), RECORD * places.len());
        let flat = |of: &dyn Fn(usize) -> Vec<u32>| {
            let mut words = vec![0; numbers.max(1)];
            for (i, place) in places.iter().enumerate() {
                words[place.start..place.start + place.numbers()].copy_from_slice(&of(i));
            }
            words
        };
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let parameters = model.parameters();
        assert_eq!(moments.len(), parameters.len(), "moments of another model");
        if parameters.iter().flat_map(|p| &p.data).any(|x| !x.is_finite()) {
            return Err(ModelError::NotFinite("a weight of the model").into());
        }
        Ok(Self {
            records: driver.upload(&records)?,
            weight: driver.upload(&flat(&|i| bits(&parameters[i].data)))?,
            gradient: driver.upload(&vec![0; (numbers + marks).max(1)])?,
            moments: [
                driver.upload(&flat(&|i| bits(&moments[i].0)))?,
                driver.upload(&flat(&|i| bits(&moments[i].1)))?,
            ],
            copies: driver.allocate(copies.max(1))?,
            places,
            numbers,
            marks,
        })
    }

    /// Reads numbers of all parameters, laid out as the weights are, and hands each parameter's to `take`.
    pub(super) fn read(
        &self,
        driver: &D,
        lane: &mut D::Lane,
        memory: &D::Memory,
        mut take: impl FnMut(usize, &mut dyn Iterator<Item = f32>),
    ) -> Result<(), CudaError> {
        let mut words = vec![0; self.numbers];
        driver.read(lane, memory, 0, &mut words)?;
        for (i, place) in self.places.iter().enumerate() {
            let numbers = &words[place.start..place.start + place.numbers()];
            take(i, &mut numbers.iter().map(|word| f32::from_bits(*word)));
        }
        Ok(())
    }
}
