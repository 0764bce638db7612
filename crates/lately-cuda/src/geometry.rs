//! The sizes that kernels are compiled for, and where a model's weights lie in device memory.
//!
//! All weights are one array of words. The encoder's offsets are constants of its kernels, those of the top are arguments,
//! as its kernels are the same for all layers.
//!
//! The top's inputs stand in an order of their own, see [`Columns`].

use std::ops::Range;

use lately_model::ModelError;
use lately_model::device::{EncoderParts, LayerParts, LinearParts, ServingParts, TransformerParts};

use crate::CudaError;
use crate::columns::{Columns, reordered};
use crate::fragment::{TILE, pair, right, tiles};

/// Widest token: a warp holds 16 rows of it as f32 in registers, of which a lane has 255.
pub(crate) const MOST_WIDTH: usize = 192;
/// Longest history: a warp for each 16 tokens, and a block of 512 threads leaves each 128 registers.
pub(crate) const MOST_TOKENS: usize = 256;
/// Where sections start, in words: 128 bytes, a line of the cache.
const ALIGNMENT: usize = 32;
/// Words that memory is read by: 32 bytes.
const SECTOR: usize = 8;
/// Registers a thread that the encoder is compiled for: blocks a multiprocessor follow of it. With two blocks of 224 threads
/// the compiler spills 340 bytes at 96 features.
const REGISTERS: usize = 144;
/// The same of a multiprocessor, on every card since 8.0.
const ALL_REGISTERS: usize = 65_536;

/// Everything about a model but its weights.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Geometry {
    pub(crate) encoder: Option<EncoderGeometry>,
    /// Of the top's inputs.
    pub(crate) columns: Columns,
    /// Most tokens of a request.
    pub(crate) length: usize,
    pub(crate) project: Option<Dense>,
    pub(crate) cross: Vec<Dense>,
    pub(crate) mlp: Vec<Dense>,
    pub(crate) head: Dense,
    /// First word of what the first product multiplies the request's columns with: their number x its outputs, f32, up to
    /// whole tiles.
    pub(crate) of_request: usize,
    /// Words of all weights.
    pub(crate) words: usize,
}

/// Sizes of the encoder, and its sections among the weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EncoderGeometry {
    pub(crate) width: usize,
    pub(crate) token: usize,
    pub(crate) candidate: usize,
    pub(crate) output: usize,
    ffn: usize,
    layers: usize,
    first_k: usize,
    pool: bool,
    sections: Vec<(&'static str, usize)>,
}

/// A linear map of the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dense {
    /// First words of the weight and the bias.
    pub(crate) weight: usize,
    pub(crate) bias: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Whether its sums start from those over the request's columns, which it then leaves out.
    pub(crate) first: bool,
}

impl Geometry {
    /// Of a model, and its weights.
    pub(crate) fn of(parts: &ServingParts) -> Result<(Self, Vec<u32>), CudaError> {
        let mut weights = Weights::default();
        let encoder = match &parts.encoder {
            EncoderParts::None => None,
            EncoderParts::Transformer(encoder) => {
                supported(encoder, parts.length)?;
                Some(EncoderGeometry::of(encoder, &mut weights))
            }
            EncoderParts::Other => {
                return Err(CudaError::Unsupported {
                    what: "this encoder".into(),
                    advice: "set encoder = \"transact\", attention_heads = 1 and fusion = \"concat\", or serve on the CPU",
                });
            }
        };
        let columns = Columns::of(parts);
        let order = columns.order();
        // Layers stand in the inputs' order up to the first one that has outputs of its own; a gate has not.
        let (mut ordered, mut of_request) = (true, None);
        let mut dense = |map: &LinearParts, gate: bool| {
            let inputs: &[_] = if ordered { &order } else { &[] };
            let outputs = if gate { inputs } else { &[] };
            ordered &= gate;
            let map = reordered(map, outputs, inputs);
            let first = of_request.is_none();
            of_request.get_or_insert_with(|| weights.by_inputs(&map, columns.request_at()..columns.width()));
            Dense { first, ..weights.dense(&map) }
        };
        let project = parts.project.as_ref().map(|map| dense(map, false));
        let cross = parts.cross.iter().map(|map| dense(map, true)).collect();
        let mlp = parts.mlp.iter().map(|map| dense(map, false)).collect();
        let head = dense(&parts.head, false);
        let of_request = of_request.unwrap_or(0);
        if !weights.finite {
            return Err(ModelError::NotFinite("a weight of the model").into());
        }
        let (length, words) = (parts.length, weights.words.len());
        let geometry = Self { encoder, columns, length, project, cross, mlp, head, of_request, words };
        Ok((geometry, weights.words))
    }

    /// The map that sees the top's inputs.
    pub(crate) fn first(&self) -> &Dense {
        self.project.as_ref().or(self.cross.first()).or(self.mlp.first()).unwrap_or(&self.head)
    }

    /// Widest matrix between two kernels of the top.
    pub(crate) fn widest(&self) -> usize {
        let maps = self.project.iter().chain(&self.cross).chain(&self.mlp);
        maps.map(|d| d.outputs).fold(self.columns.width(), usize::max)
    }

    /// Width of the candidate's part of a token; 0 without an encoder.
    pub(crate) fn candidate(&self) -> usize {
        self.encoder.as_ref().map_or(0, |e| e.candidate)
    }

    /// Words of an item: its part of a token in f32, and its columns in bfloat16, up to whole sectors of a line.
    pub(crate) fn item_words(&self) -> usize {
        (self.candidate() + self.columns.item.div_ceil(2)).max(1).next_multiple_of(SECTOR)
    }

    /// Most tokens of a request in whole tiles.
    pub(crate) fn most_tokens(&self) -> usize {
        tiles(self.length.max(1)) * TILE
    }

    /// Names and values for the compiler.
    pub(crate) fn constants(&self) -> Vec<(&'static str, String)> {
        let c = &self.columns;
        let sizes = [
            ("INPUTS", c.width()),
            ("OUTPUT", c.output),
            ("AFFINITY", c.affinity.map_or(0, |a| a.width())),
            ("ITEM_COLUMNS", c.item),
            ("REQUEST_AT", c.request_at()),
            ("REQUEST_COLUMNS", c.request),
            ("CANDIDATE", self.candidate()),
            ("ITEM_WORDS", self.item_words()),
        ];
        let mut list: Vec<_> = sizes.map(|(name, value)| (name, value.to_string())).into();
        if let Some(affinity) = c.affinity {
            list.push(("ACTIONS", affinity.actions.to_string()));
            list.push(("AFFINITY_SCALE", format!("{:e}f", affinity.scale)));
        }
        let Some(e) = &self.encoder else {
            list.push(("WIDTH", "0".into()));
            return list;
        };
        let threads = 2 * self.most_tokens();
        let blocks = (ALL_REGISTERS / (threads * REGISTERS)).max(1);
        let sizes = [
            ("WIDTH", e.width),
            ("TOKEN", e.token),
            ("FFN", e.ffn),
            ("LAYERS", e.layers),
            ("FIRST_K", e.first_k),
            ("POOL", usize::from(e.pool)),
            ("TOKENS", self.most_tokens()),
            ("BLOCKS", blocks),
        ];
        list.extend(sizes.iter().chain(&e.sections).map(|(name, value)| (*name, value.to_string())));
        list.push(("GUARD", format!("{:e}f", lately_model::device::GUARD)));
        list
    }

    /// Bytes of shared memory of a block of the kernel that makes a request's part.
    pub(crate) fn request_bytes(&self) -> usize {
        self.encoder.as_ref().map_or(0, |e| 16 * (2 * e.token + self.most_tokens()) * size_of::<f32>())
    }

    /// The same of the encoder, for so many tiles of tokens.
    pub(crate) fn encoder_bytes(&self, tiles_of_tokens: usize) -> usize {
        let Some(e) = &self.encoder else { return 0 };
        let (tokens, width) = (tiles_of_tokens * TILE, tiles(e.width) * TILE);
        let keys_and_values = 2 * tokens * (width + 8) * size_of::<u16>();
        let numbers = 2 * tokens + 2 * width + tiles(e.candidate) * TILE + tiles_of_tokens * width;
        keys_and_values + numbers * size_of::<f32>()
    }
}

fn supported(encoder: &TransformerParts, length: usize) -> Result<(), CudaError> {
    let width = encoder.token + encoder.candidate;
    let (what, advice) = if width > MOST_WIDTH {
        (
            format!("tokens of width {width}, the most is {MOST_WIDTH}"),
            "narrow the item embedding or action_dim",
        )
    } else if length > MOST_TOKENS {
        (format!("histories of {length} actions, the most is {MOST_TOKENS}"), "shorten the schema's sequence")
    } else {
        return Ok(());
    };
    Err(CudaError::Unsupported { what, advice })
}

impl EncoderGeometry {
    fn of(encoder: &TransformerParts, weights: &mut Weights) -> Self {
        let (token, candidate) = (encoder.token, encoder.candidate);
        let mut sections = Vec::new();
        first_layer(encoder, weights, &mut sections);
        let at = weights.place();
        sections.push(("LAYERS_AT", at));
        for (i, layer) in encoder.layers.iter().enumerate() {
            let start = weights.place();
            let mut of_layer = Vec::new();
            layer_weights(layer, token + candidate, weights, &mut of_layer);
            of_layer.push(("LAYER_WORDS", weights.place()));
            of_layer.iter_mut().for_each(|(_, at)| *at -= start);
            if i == 0 {
                sections.append(&mut of_layer);
            }
        }
        if let Some(pool) = &encoder.pool {
            sections.push(("POOL_WEIGHT", weights.pairs(pool)));
            sections.push(("POOL_BIAS", weights.numbers(&pool.bias)));
        }
        Self {
            width: token + candidate,
            token,
            candidate,
            output: encoder.output,
            ffn: encoder.layers[0].linear1.outputs(),
            layers: encoder.layers.len(),
            first_k: encoder.first_k,
            pool: encoder.pool.is_some(),
            sections,
        }
    }
}

/// What the first layer multiplies with, in f32 and by inputs, as a thread has an output: the token's part of queries and
/// values, the candidate's part of both.
fn first_layer(encoder: &TransformerParts, weights: &mut Weights, sections: &mut Vec<(&'static str, usize)>) {
    let (a, c) = (encoder.token, encoder.candidate);
    let (d, padded) = (a + c, tiles(a + c) * TILE);
    let LinearParts { weight, bias } = &encoder.layers[0].attention;
    // A key of the first layer is [a ; c], of which c is the same for all and leaves the softmax as it is: of M only the
    // rows of a are needed.
    sections.push(("FIRST_QUERY", weights.matrix(a, a, |k, out| weight[out * d + k])));
    sections.push(("FIRST_QUERY_BIAS", weights.numbers(&bias[..a])));
    let value = |k: usize, out: usize| if out < d { weight[(d + out) * d + k] } else { 0.0 };
    sections.push(("FIRST_VALUE", weights.matrix(a, padded, value)));
    sections.push(("FIRST_VALUE_BIAS", weights.numbers(&bias[d..])));
    sections.push(("CANDIDATE_QUERY", weights.matrix(a, c, |key, k| weight[key * d + a + k])));
    sections.push(("CANDIDATE_VALUE", weights.matrix(c, padded, |k, out| value(a + k, out))));
}

fn layer_weights(layer: &LayerParts, d: usize, weights: &mut Weights, at: &mut Vec<(&'static str, usize)>) {
    let LinearParts { weight, bias } = &layer.attention;
    at.push(("QUERY", weights.right(d, d, &weight[..d * d])));
    at.push(("QUERY_BIAS", weights.numbers(&bias[..d])));
    at.push(("VALUE", weights.right(d, d, &weight[d * d..])));
    at.push(("VALUE_BIAS", weights.numbers(&bias[d..])));
    at.push(("OUT_BIAS", weights.numbers(&layer.out_bias)));
    for (name, values) in [("GAMMA1", &layer.norm1[0]), ("BETA1", &layer.norm1[1])] {
        at.push((name, weights.numbers(values)));
    }
    for (name, values) in [("GAMMA2", &layer.norm2[0]), ("BETA2", &layer.norm2[1])] {
        at.push((name, weights.numbers(values)));
    }
    for (names, map) in [(("LINEAR1", "BIAS1"), &layer.linear1), (("LINEAR2", "BIAS2"), &layer.linear2)] {
        at.push((names.0, weights.right(map.outputs(), map.inputs(), &map.weight)));
        at.push((names.1, weights.numbers(&map.bias)));
    }
}

/// Words of weights, section after section.
struct Weights {
    words: Vec<u32>,
    finite: bool,
}

impl Default for Weights {
    fn default() -> Self {
        Self { words: Vec::new(), finite: true }
    }
}

impl Weights {
    /// Where the next section starts.
    fn place(&mut self) -> usize {
        let at = self.words.len().next_multiple_of(ALIGNMENT);
        self.words.resize(at, 0);
        at
    }

    /// Numbers in f32, 0 up to whole tiles.
    fn numbers(&mut self, values: &[f32]) -> usize {
        let at = self.place();
        self.see(values);
        self.words.extend(values.iter().map(|x| x.to_bits()));
        self.words.resize(at + tiles(values.len()) * TILE, 0);
        at
    }

    /// Rows x columns in f32.
    fn matrix(&mut self, rows: usize, columns: usize, value: impl Fn(usize, usize) -> f32) -> usize {
        let at = self.place();
        for row in 0..rows {
            self.words.extend((0..columns).map(|column| value(row, column).to_bits()));
        }
        at
    }

    /// A weight, outputs x inputs, as fragments.
    fn right(&mut self, outputs: usize, inputs: usize, weight: &[f32]) -> usize {
        let at = self.place();
        self.see(weight);
        self.words.extend(right(outputs, inputs, |n, k| weight[n * inputs + k]));
        at
    }

    /// A map as pairs of inputs x outputs, in whole tiles.
    fn pairs(&mut self, map: &LinearParts) -> usize {
        let at = self.place();
        self.see(&map.weight);
        let (outputs, inputs) = (map.outputs(), map.inputs());
        let value =
            |k: usize, n: usize| if k < inputs && n < outputs { map.weight[n * inputs + k] } else { 0.0 };
        for k in (0..tiles(inputs) * TILE).step_by(2) {
            self.words.extend((0..tiles(outputs) * TILE).map(|n| pair(value(k, n), value(k + 1, n))));
        }
        at
    }

    fn dense(&mut self, map: &LinearParts) -> Dense {
        let (outputs, inputs) = (map.outputs(), map.inputs());
        Dense {
            weight: self.right(outputs, inputs, &map.weight),
            bias: self.numbers(&map.bias),
            inputs,
            outputs,
            first: false,
        }
    }

    /// Some inputs of a map x its outputs up to whole tiles, in f32.
    fn by_inputs(&mut self, map: &LinearParts, inputs: Range<usize>) -> usize {
        let (outputs, all, first) = (map.outputs(), map.inputs(), inputs.start);
        let value = |k: usize, n: usize| if n < outputs { map.weight[n * all + first + k] } else { 0.0 };
        self.matrix(inputs.len(), tiles(outputs) * TILE, value)
    }

    fn see(&mut self, values: &[f32]) {
        self.finite &= values.iter().all(|x| x.is_finite());
    }
}
