//! The order in which the top's inputs stand on a card.
//!
//! A model has them as [encoder ; affinity ; request ; item]. What a request's columns add to the first product is the same
//! for all of its rows and is made once, and the product runs over the others alone. A fragment is a tile of 16 columns, and
//! the request's begin anywhere: a product that left them out would have to take two tiles apart. So they come last here, at
//! the start of a tile: [encoder ; affinity ; item ; 0 ... ; request]. Weights are put into this order once, when a model is
//! loaded, with zeros for the columns that stand between; a sum over other columns in another order is as exact.

use lately_model::device::{AffinityParts, EncoderParts, LinearParts, ServingParts};

use crate::fragment::TILE;

/// For each column the one that it is in the model, none for a column of zeros.
pub(crate) type Order = Vec<Option<usize>>;

/// Widths of the blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Columns {
    /// The encoder's output.
    pub(crate) output: usize,
    pub(crate) affinity: Option<AffinityParts>,
    pub(crate) item: usize,
    pub(crate) request: usize,
}

impl Columns {
    pub(crate) fn of(parts: &ServingParts) -> Self {
        let output = match &parts.encoder {
            EncoderParts::Transformer(encoder) => encoder.output,
            EncoderParts::None | EncoderParts::Other => 0,
        };
        let item = parts.inputs - parts.request.end;
        Self { output, affinity: parts.affinity, item, request: parts.request.len() }
    }

    /// First column of the item's.
    pub(crate) fn item_at(&self) -> usize {
        self.output + self.affinity.map_or(0, |a| a.width())
    }

    /// First column of the request's, where a tile starts.
    pub(crate) fn request_at(&self) -> usize {
        (self.item_at() + self.item).next_multiple_of(TILE)
    }

    /// All columns.
    pub(crate) fn width(&self) -> usize {
        self.request_at() + self.request
    }

    /// Of all columns.
    pub(crate) fn order(&self) -> Order {
        let at = self.item_at();
        let (request, item) = (at..at + self.request, at + self.request..at + self.request + self.item);
        let mut order: Vec<_> = (0..at).chain(item).map(Some).collect();
        order.resize(self.request_at(), None);
        order.extend(request.map(Some));
        order
    }
}

/// A map whose outputs and inputs stand in another order: an empty one leaves them as they are.
pub(crate) fn reordered(
    map: &LinearParts,
    outputs: &[Option<usize>],
    inputs: &[Option<usize>],
) -> LinearParts {
    let all = |order: &[Option<usize>], n: usize| match order {
        [] => (0..n).map(Some).collect(),
        order => order.to_vec(),
    };
    let (outputs, inputs): (Order, Order) = (all(outputs, map.outputs()), all(inputs, map.inputs()));
    let mut weight = Vec::with_capacity(outputs.len() * inputs.len());
    for row in &outputs {
        let row = row.map(|row| &map.weight[row * map.inputs()..][..map.inputs()]);
        weight.extend(inputs.iter().map(|from| row.zip(*from).map_or(0.0, |(row, from)| row[from])));
    }
    let bias = outputs.iter().map(|from| from.map_or(0.0, |from| map.bias[from])).collect();
    LinearParts { weight, bias }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reordered_map_gives_the_same_numbers_in_the_new_order() {
        let affinity = Some(AffinityParts { actions: 1, scale: 5.0 });
        let columns = Columns { output: 2, affinity, item: 3, request: 4 };
        let (order, n) = (columns.order(), 13);
        let weight: Vec<f32> = (0..n * n).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
        let map = LinearParts { weight, bias: (0..n).map(|i| i as f32).collect() };
        let of = |map: &LinearParts, x: &[f32]| -> Vec<f32> {
            let rows = map.weight.chunks_exact(map.inputs()).zip(&map.bias);
            rows.map(|(w, b)| b + w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>()).collect()
        };
        let put = |x: &[f32]| -> Vec<f32> { order.iter().map(|from| from.map_or(0.0, |i| x[i])).collect() };
        let x: Vec<f32> = (0..n).map(|i| (i * i % 5) as f32).collect();
        let y = of(&map, &x);
        assert_eq!(of(&reordered(&map, &[], &order), &put(&x)), y);
        assert_eq!(of(&reordered(&map, &order, &order), &put(&x)), put(&y));
        assert_eq!(reordered(&map, &[], &[]), map);
    }

    #[test]
    fn the_requests_columns_come_last_at_the_start_of_a_tile() {
        let affinity = Some(AffinityParts { actions: 1, scale: 5.0 });
        let columns = Columns { output: 6, affinity, item: 5, request: 3 };
        let mut want: Vec<_> = (0..10).chain(13..18).map(Some).collect();
        want.extend([None, Some(10), Some(11), Some(12)]);
        assert_eq!((columns.order(), columns.width()), (want, 19));
        // No gap where the others fill their tiles.
        let columns = Columns { item: 6, ..columns };
        assert_eq!((columns.request_at(), columns.width()), (16, 19));
        assert!(columns.order().iter().all(Option::is_some));
        // A request without columns, and nothing but its columns.
        let none = Columns { request: 0, ..columns };
        assert_eq!((none.order().len(), none.width()), (16, 16));
        let alone = Columns { output: 0, affinity: None, item: 0, request: 3 };
        assert_eq!(alone.order(), [Some(0), Some(1), Some(2)]);
    }
}
