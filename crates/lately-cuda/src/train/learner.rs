//! A model that learns on a device.

use std::sync::Arc;

use lately_model::training::Dropout;
use lately_model::training::{LearnerOptions, Moments, StagedBatch, Stretch, TrainingPlan};
use lately_model::{AcceleratorError, AdamStep, Model, Precision};

use super::launches::{self, Launches, Memories, SQUARES};
use super::pack;
use super::tape::Tape;
use super::weights::Weights;
use crate::CudaError;
use crate::driver::Driver;
use crate::geometry::{MOST_TOKENS, MOST_WIDTH};
use crate::kernels::Source;

/// Places of stretches' masks start here, as those of the CPU's chunks do.
const STRETCH_PLACE: u64 = 1 << 32;

/// Weights, moments, gradient and working memory on a device.
pub(crate) struct Learner<D: Driver> {
    // Dropped in this order: what is queued before what it uses.
    company: Company<D::Peers>,
    lane: D::Lane,
    memory: Memories<D>,
    module: Arc<D::Module>,
    /// Words of the lane's input and of the tape.
    room: [usize; 2],
    plan: TrainingPlan,
    split: bool,
    driver: Arc<D>,
}

/// Who shares each step.
enum Company<P> {
    Alone,
    /// `summed`: the gradient is the group's already.
    Group {
        peers: P,
        summed: bool,
    },
    /// A group of which a member failed, possibly this one.
    Lost,
}

impl<D: Driver> Learner<D> {
    /// Refuses models without kernels, and weights that are not finite.
    pub(crate) fn new(
        driver: &Arc<D>,
        model: &Model,
        moments: &Moments,
        options: &LearnerOptions,
    ) -> Result<Self, CudaError> {
        let plan = TrainingPlan::of(model).map_err(|error| match error {
            AcceleratorError::Unsupported(what) => unsupported(what),
            other => unsupported(other.to_string()),
        })?;
        supported(&plan)?;
        let split = options.precision == Precision::F32;
        let source = Source::of_training(&plan, split);
        let module = driver.load(&source, &launches::shared(&plan, split))?;
        let mut lane = driver.lane(1, 1)?;
        let weights = Weights::new(&**driver, &plan, model, moments, split)?;
        let memory = Memories {
            tape: driver.allocate(1)?,
            parts: driver.allocate(launches::parts(&plan))?,
            squares: driver.allocate(2 * SQUARES)?,
            weights,
        };
        driver.launch(&module, &mut lane, &[launches::adam(&memory.weights, None)])?;
        let company = match &options.group {
            Some(group) => Company::Group { peers: driver.join(group)?, summed: false },
            None => Company::Alone,
        };
        Ok(Self { company, lane, memory, module, room: [1, 1], plan, split, driver: Arc::clone(driver) })
    }

    /// See [`lately_model::training::Learner::gradient`].
    pub(crate) fn gradient(
        &mut self,
        batch: &StagedBatch,
        dropout_seed: Option<u64>,
    ) -> Result<f64, CudaError> {
        let dropout = match dropout_seed {
            Some(seed) => Dropout { seed, rate: self.plan.dropout },
            None => Dropout::default(),
        };
        if matches!(self.company, Company::Group { summed: true, .. }) {
            // Added to the group's sum it would count once a member.
            return Err(group_failed("add to a gradient that is summed: update first"));
        }
        let mut loss = 0.0;
        for stretch in &batch.stretches {
            let dropout = dropout.at(STRETCH_PLACE + stretch.rows.start as u64);
            loss += self.stretch(batch, stretch, dropout).inspect_err(|_| self.leave())?;
        }
        self.sum_of_losses(loss)
    }

    /// All members' losses together; as two f32, since that is what is added up.
    fn sum_of_losses(&mut self, loss: f64) -> Result<f64, CudaError> {
        if matches!(self.company, Company::Alone) {
            return Ok(loss);
        }
        let first = loss as f32;
        let mut words = [first, (loss - f64::from(first)) as f32].map(f32::to_bits);
        let Self { lane, memory, driver, .. } = self;
        driver.write(lane, &memory.squares, 0, &words)?;
        self.add_up(|memory| &memory.squares, words.len())?;
        let Self { lane, memory, driver, .. } = self;
        driver.read(lane, &memory.squares, 0, &mut words)?;
        Ok(words.iter().map(|word| f64::from(f32::from_bits(*word))).sum())
    }

    /// Makes the gradient the group's.
    fn sum(&mut self) -> Result<(), CudaError> {
        if matches!(self.company, Company::Alone | Company::Group { summed: true, .. }) {
            return Ok(());
        }
        let words = self.memory.weights.numbers + self.memory.weights.marks;
        self.add_up(|memory| &memory.weights.gradient, words)?;
        if let Company::Group { summed, .. } = &mut self.company {
            *summed = true;
        }
        Ok(())
    }

    fn add_up(&mut self, of: impl Fn(&Memories<D>) -> &D::Memory, words: usize) -> Result<(), CudaError> {
        let Self { company, lane, memory, driver, .. } = self;
        let Company::Group { peers, .. } = company else {
            return Err(group_failed("go on: a member has failed before"));
        };
        driver.add_up(lane, peers, of(memory), 0, words).inspect_err(|_| self.leave())
    }

    /// Leaves a group that can no longer learn as one, so that the others do not wait.
    fn leave(&mut self) {
        if matches!(self.company, Company::Group { .. }) {
            self.company = Company::Lost;
        }
    }

    fn stretch(
        &mut self,
        batch: &StagedBatch,
        stretch: &Stretch,
        dropout: Dropout,
    ) -> Result<f64, CudaError> {
        let longest = stretch.offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0) as usize;
        if let Some(e) = self.plan.encoder.as_ref().filter(|e| longest > e.length) {
            return Err(CudaError::Tokens { got: longest, limit: e.length });
        }
        let tape = Tape::of(&self.plan, stretch, self.split);
        self.make_room([pack::size(stretch), tape.words])?;
        let Self { lane, memory, module, plan, driver, .. } = self;
        let packed = pack::pack(stretch, driver.input(lane)?);
        let split = self.split;
        let begin = || Launches {
            list: Vec::new(),
            memory: &*memory,
            plan: &*plan,
            tape: &tape,
            packed: &packed,
            longest,
            split,
        };
        driver.send(lane, packed.words)?;
        let mut forward = begin();
        forward.forward(dropout);
        driver.launch(module, lane, &forward.list)?;

        let numbers = stretch.rows.len() * plan.heads;
        let mut words = vec![0; numbers];
        let mut logits = |at: usize, lane: &mut D::Lane| -> Result<Vec<f32>, CudaError> {
            driver.read(lane, &memory.tape, at, &mut words)?;
            Ok(words.iter().map(|word| f32::from_bits(*word)).collect())
        };
        let order = logits(tape.logits, lane)?;
        let mut sums = order.clone();
        if plan.rate.is_some() {
            let rate = logits(tape.rate_logits, lane)?;
            sums.iter_mut().zip(rate).for_each(|(sum, rate)| *sum += rate);
        }
        let mut gradients = vec![0.0; 2 * numbers];
        let (of_order, of_rate) = gradients.split_at_mut(numbers);
        let loss = batch.loss(stretch, &sums, &order, [of_order, of_rate]);
        let words: Vec<u32> = gradients.iter().map(|x| x.to_bits()).collect();
        driver.write(lane, &memory.tape, tape.numbers, &words)?;

        let mut backward = begin();
        backward.backward(dropout);
        driver.launch(module, lane, &backward.list)?;
        Ok(loss)
    }

    /// Memory for a stretch; what there was is dropped first.
    fn make_room(&mut self, [input, tape]: [usize; 2]) -> Result<(), CudaError> {
        // A quarter more, so that batches of about one size seldom ask again.
        let more = |words: usize| words + words / 4;
        if input > self.room[0] {
            self.lane = self.driver.lane(more(input), 1)?;
            self.room[0] = more(input);
        }
        if tape > self.room[1] {
            // Waits for what is queued, which may use it.
            self.driver.read(&mut self.lane, &self.memory.squares, 0, &mut [0])?;
            self.room[1] = 1;
            self.memory.tape = self.driver.allocate(1)?;
            self.memory.tape = self.driver.allocate(more(tape))?;
            self.room[1] = more(tape);
        }
        Ok(())
    }

    /// See [`lately_model::training::Learner::norm`].
    pub(crate) fn norm(&mut self) -> Result<f64, CudaError> {
        self.sum()?;
        let Self { lane, memory, module, driver, .. } = self;
        driver.launch(module, lane, &[launches::squares(memory)])?;
        let mut words = [0; 2 * SQUARES];
        driver.read(lane, &memory.squares, 0, &mut words)?;
        let sum = |pair: &[u32; 2]| f64::from_bits(u64::from(pair[0]) | u64::from(pair[1]) << 32);
        Ok(words.as_chunks().0.iter().map(sum).sum::<f64>().sqrt())
    }

    /// See [`lately_model::training::Learner::update`].
    pub(crate) fn update(&mut self, step: AdamStep) -> Result<(), CudaError> {
        self.sum()?;
        if let Company::Group { summed, .. } = &mut self.company {
            *summed = false;
        }
        let Self { lane, memory, module, driver, .. } = self;
        let weights = &memory.weights;
        driver.launch(module, lane, &[launches::adam(weights, Some(step)), launches::unmark(weights)])
    }

    /// See [`lately_model::training::Learner::read`].
    pub(crate) fn read(&mut self, model: &mut Model, moments: &mut Moments) -> Result<(), CudaError> {
        let Self { lane, memory, driver, .. } = self;
        let weights = &memory.weights;
        let mut parameters: Vec<&mut [f32]> = model.parameters_mut().map(|(_, data)| data).collect();
        weights.read(driver, lane, &weights.weight, |i, numbers| fill(parameters[i], numbers))?;
        weights.read(driver, lane, &weights.moments[0], |i, numbers| fill(&mut moments[i].0, numbers))?;
        weights.read(driver, lane, &weights.moments[1], |i, numbers| fill(&mut moments[i].1, numbers))
    }

    /// The gradient added up so far, a list a parameter.
    pub(crate) fn gradients(&mut self) -> Result<Vec<Vec<f32>>, CudaError> {
        let Self { lane, memory, driver, .. } = self;
        let mut all = Vec::new();
        let weights = &memory.weights;
        weights.read(driver, lane, &weights.gradient, |_, numbers| all.push(numbers.collect()))?;
        Ok(all)
    }
}

fn fill(to: &mut [f32], from: &mut dyn Iterator<Item = f32>) {
    to.iter_mut().zip(from).for_each(|(to, x)| *to = x);
}

fn group_failed(doing: &'static str) -> CudaError {
    CudaError::Group { doing, reason: "this member's gradient is no longer the group's".into() }
}

fn unsupported(what: String) -> CudaError {
    CudaError::Unsupported { what, advice: "train on the CPU" }
}

/// What the kernels of training are for.
fn supported(plan: &TrainingPlan) -> Result<(), CudaError> {
    let Some(e) = &plan.encoder else { return Ok(()) };
    if e.width > MOST_WIDTH {
        return Err(unsupported(format!("tokens of {} numbers, at most {MOST_WIDTH}", e.width)));
    }
    if e.length > MOST_TOKENS {
        return Err(unsupported(format!("histories of {} tokens, at most {MOST_TOKENS}", e.length)));
    }
    Ok(())
}
