//! The model's parameters, and where every input stands in the row that the cross layers see.

use std::ops::Range;

use lately_features::batch::{CategoricalSlots, Layout};
use lately_features::schema::Schema;
use lately_kernels::Real;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::{Encoder, ModelConfig, refused};
use crate::encoder::{self, EncoderPlan};
use crate::rate::{self, RatePlan};
use crate::{ModelError, affinity};

/// Width of the trained embedding of the request's surface.
const SURFACE_DIM: usize = 4;
/// More parameters are refused: 8 GiB of f32.
const MOST_PARAMETERS: usize = 1 << 31;

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Start {
    Constant(f64),
    /// Uniform within +- this.
    Uniform(f64),
    /// Normal of mean 0 with this deviation.
    Normal(f64),
}

/// Name, shape and start of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) start: Start,
    pub(crate) table: bool,
}

impl Spec {
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// One trained tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter<R = f32> {
    /// Name as in the official PyTorch module where there is one.
    pub name: String,
    /// Shape; a linear map is outputs x inputs.
    pub shape: Vec<usize>,
    /// Values.
    pub data: Vec<R>,
    /// A hashed embedding table, of which a batch touches few rows; see [`crate::GradientOf::touched`].
    pub table: bool,
}

/// Indices of an encoder layer's weights; each bias follows its weight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerIds {
    pub(crate) in_proj: usize,
    pub(crate) out_proj: usize,
    pub(crate) linear1: usize,
    pub(crate) linear2: usize,
    pub(crate) norm1: usize,
    pub(crate) norm2: usize,
}

/// A categorical feature's table and place.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) id: usize,
    pub(crate) slots: CategoricalSlots,
    pub(crate) offset: usize,
}

/// One side (user or item) of the inputs.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) layout: Layout,
    pub(crate) tables: Vec<Table>,
    pub(crate) numeric: usize,
    pub(crate) embedding: usize,
}

/// All sizes, indices and column offsets that follow from configuration and schema.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Width of an item embedding.
    pub(crate) item_dim: usize,
    pub(crate) compatibility: bool,
    pub(crate) encoder: EncoderPlan,
    /// Whether the affinity block follows the encoder's output.
    pub(crate) affinity: bool,
    pub(crate) user: Side,
    pub(crate) item: Side,
    /// Table of surfaces and its first column.
    pub(crate) surface: Option<(usize, usize)>,
    pub(crate) surfaces: usize,
    pub(crate) actions: usize,
    pub(crate) heads: usize,
    /// Width of all inputs.
    pub(crate) inputs: usize,
    /// Width of the cross layers.
    pub(crate) cross_width: usize,
    /// The encoder's parameters.
    pub(crate) encoder_parameters: Range<usize>,
    /// The rate tower.
    pub(crate) rate: Option<RatePlan>,
    pub(crate) project: Option<usize>,
    pub(crate) cross: Vec<usize>,
    pub(crate) mlp: Vec<usize>,
    pub(crate) head: usize,
}

/// Collects the parameters in order.
pub(crate) struct Builder {
    specs: Vec<Spec>,
}

impl Builder {
    pub(crate) fn push(&mut self, name: String, shape: Vec<usize>, start: Start, table: bool) -> usize {
        self.specs.push(Spec { name, shape, start, table });
        self.specs.len() - 1
    }
    /// PyTorch's `nn.Linear`: both uniform within 1 / sqrt(inputs).
    pub(crate) fn linear(&mut self, name: &str, outputs: usize, inputs: usize) -> usize {
        let start = Start::Uniform(1.0 / (inputs.max(1) as f64).sqrt());
        let id = self.push(format!("{name}.weight"), vec![outputs, inputs], start, false);
        self.push(format!("{name}.bias"), vec![outputs], start, false);
        id
    }
    fn norm(&mut self, name: &str, width: usize) -> usize {
        let id = self.push(format!("{name}.weight"), vec![width], Start::Constant(1.0), false);
        self.push(format!("{name}.bias"), vec![width], Start::Constant(0.0), false);
        id
    }
    /// PyTorch's `nn.TransformerEncoderLayer`: Xavier for the joint projection, attention biases 0.
    pub(crate) fn layer(&mut self, name: &str, d: usize, ffn: usize) -> LayerIds {
        let xavier = Start::Uniform((6.0 / (4 * d) as f64).sqrt());
        let in_proj = self.push(format!("{name}.self_attn.in_proj_weight"), vec![3 * d, d], xavier, false);
        self.push(format!("{name}.self_attn.in_proj_bias"), vec![3 * d], Start::Constant(0.0), false);
        let out_proj = self.linear(&format!("{name}.self_attn.out_proj"), d, d);
        self.specs[out_proj + 1].start = Start::Constant(0.0);
        LayerIds {
            in_proj,
            out_proj,
            linear1: self.linear(&format!("{name}.linear1"), ffn, d),
            linear2: self.linear(&format!("{name}.linear2"), d, ffn),
            norm1: self.norm(&format!("{name}.norm1"), d),
            norm2: self.norm(&format!("{name}.norm2"), d),
        }
    }
    /// Tables of one side and its columns from `at` on.
    fn side(&mut self, prefix: &str, layout: Layout, compatibility: bool, at: &mut usize) -> Side {
        let mut tables = Vec::new();
        for slots in layout.categorical.iter().filter(|_| !compatibility) {
            let shape = vec![slots.buckets, slots.dim];
            let id = self.push(format!("{prefix}.{}", slots.name), shape, Start::Normal(0.05), true);
            tables.push(Table { id, slots: slots.clone(), offset: *at });
            *at += slots.dim;
        }
        let numeric = *at;
        *at += layout.numeric_width;
        let embedding = *at;
        *at += if compatibility { 0 } else { layout.embedding_width };
        Side { layout, tables, numeric, embedding }
    }
}

impl Plan {
    /// Checks the configuration and lays everything out.
    pub(crate) fn new(config: &ModelConfig, schema: &Schema) -> Result<(Self, Vec<Spec>), ModelError> {
        schema.validate()?;
        let item_dim = schema.item_embedding_dim();
        config.validate(item_dim)?;
        if config.multi_action && schema.actions.len() > u64::BITS as usize {
            let range = "false for a schema of more than 64 action types".into();
            return Err(refused("multi_action", &true, range));
        }
        let mut b = Builder { specs: Vec::new() };
        let encoder = encoder::plan(&mut b, config, schema);
        let encoder_parameters = 0..b.specs.len();
        let affinity = config.affinity && config.encoder != Encoder::None && !config.compatibility;
        let mut inputs = encoder.output + if affinity { affinity::VALUES * schema.actions.len() } else { 0 };
        let first_of_user = inputs;
        let user = b.side("user", Layout::of(&schema.user_features), config.compatibility, &mut inputs);
        let user_columns = first_of_user..inputs;
        let surface = (!config.compatibility).then(|| {
            let shape = vec![schema.surfaces.len() + 1, SURFACE_DIM];
            inputs += SURFACE_DIM;
            (b.push("surface".into(), shape, Start::Normal(0.05), false), inputs - SURFACE_DIM)
        });
        let item = b.side("item", Layout::of(&schema.item_features), config.compatibility, &mut inputs);
        if inputs == 0 {
            return Err(refused("inputs", &0, "at least 1: declare a feature or an encoder".into()));
        }
        let project = (config.cross_width > 0).then(|| b.linear("project", config.cross_width, inputs));
        let cross_width = if config.cross_width > 0 { config.cross_width } else { inputs };
        let name = |i| format!("cross.{i}");
        let cross = (0..config.cross_layers).map(|i| b.linear(&name(i), cross_width, cross_width)).collect();
        let (mut mlp, mut last) = (Vec::new(), cross_width);
        for (i, hidden) in config.hidden.iter().enumerate() {
            mlp.push(b.linear(&format!("mlp.{i}"), *hidden, last));
            last = *hidden;
        }
        let head = b.linear("heads", schema.heads.len(), last);
        let rate = (config.rate_hidden > 0 && !config.compatibility).then(|| {
            let width = rate::summary_width(schema.actions.len()) + user_columns.len();
            let hidden = b.linear("rate.hidden", config.rate_hidden, width);
            let head = b.linear("rate.heads", schema.heads.len(), config.rate_hidden);
            b.specs[head + 1].start = Start::Constant(0.0);
            RatePlan { hidden, head, user: user_columns }
        });
        b.specs[head + 1].start = Start::Constant(0.0);
        let size = b.specs.iter().map(|s| s.len() as u128).sum::<u128>();
        if size > MOST_PARAMETERS as u128 {
            let range =
                format!("at most {MOST_PARAMETERS}: use fewer buckets, a smaller first_k or cross_width");
            return Err(refused("number of parameters", &size, range));
        }
        let plan = Self {
            item_dim,
            compatibility: config.compatibility,
            encoder,
            affinity,
            user,
            item,
            surface,
            surfaces: schema.surfaces.len(),
            actions: schema.actions.len(),
            heads: schema.heads.len(),
            inputs,
            cross_width,
            encoder_parameters,
            rate,
            project,
            cross,
            mlp,
            head,
        };
        Ok((plan, b.specs))
    }
}

impl Plan {
    /// Columns of the inputs that all rows of a request share: the user's, and the surface.
    pub(crate) fn request_columns(&self) -> Range<usize> {
        let affinity = if self.affinity { affinity::VALUES * self.actions } else { 0 };
        let end = self.item.tables.first().map_or(self.item.numeric, |t| t.offset);
        self.encoder.output + affinity..end
    }

    /// Columns of the inputs that depend on the candidate alone, up to the last one.
    pub(crate) fn item_columns(&self) -> Range<usize> {
        self.request_columns().end..self.inputs
    }
}

/// Parameters at their start, the same for one seed everywhere.
pub(crate) fn initial<R: Real>(specs: &[Spec], config: &ModelConfig, seed: u64) -> Vec<Parameter<R>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = move || random.random::<f64>();
    let mut make = |spec: &Spec| {
        let mut draw = || match spec.start {
            Start::Constant(x) => x,
            Start::Uniform(bound) => (2.0 * uniform() - 1.0) * bound,
            // Box and Muller; 1 - u is above 0.
            Start::Normal(deviation) => {
                let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt();
                deviation * radius * (std::f64::consts::TAU * uniform()).cos()
            }
        };
        let data: Vec<R> = (0..spec.len()).map(|_| R::from_f64(draw())).collect();
        Parameter { name: spec.name.clone(), shape: spec.shape.clone(), data, table: spec.table }
    };
    let mut parameters: Vec<_> = specs.iter().map(&mut make).collect();
    if config.compatibility
        && let Some(action) = parameters.iter_mut().find(|p| p.name == "transact.action.weight")
    {
        action.data[..config.action_dim].fill(R::ZERO); // PyTorch's padding row
    }
    parameters
}
