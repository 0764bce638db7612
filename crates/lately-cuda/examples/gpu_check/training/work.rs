//! Multiply-adds of a training step.

use lately_model::training::{StagedBatch, Stretch, TrainingPlan};

/// Multiply-adds of a step's products: three times the forward's, as the backward has one product for the gradient of each
/// factor. The first layer's projections of what a request's candidates share count once, as the CPU and the card make them;
/// what is computed again in the backward does not count. PyTorch's share is of this work with one row a request.
pub(crate) fn multiply_adds(plan: &TrainingPlan, batch: &StagedBatch) -> usize {
    3 * batch.stretches.iter().map(|s| forward(plan, s)).sum::<usize>()
}

fn forward(plan: &TrainingPlan, s: &Stretch) -> usize {
    let map = |id: usize| plan.parameters[id].rows * plan.parameters[id].columns;
    let maps = plan.project.iter().chain(&plan.cross).chain(&plan.mlp).chain([&plan.head]);
    let rate = plan.rate.iter().map(|r| map(r.hidden) + map(r.head));
    let top = s.rows.len() * (maps.map(|id| map(*id)).sum::<usize>() + rate.sum::<usize>());
    let Some(e) = &plan.encoder else { return top };
    let (d, tokens) = (e.width, s.tokens());
    let pairs: usize = s.offsets.windows(2).map(|w| ((w[1] - w[0]) as usize).pow(2)).sum();
    let own = if e.width > e.token { s.segments() * (e.width - e.token) } else { 0 };
    let layers = e.layers.iter().enumerate().map(|(i, _)| {
        let projected = if i == 0 { s.token_rows * e.token + own } else { tokens * d };
        projected * 3 * d + 2 * d * pairs + tokens * (d * d + 2 * d * e.ffn)
    });
    top + layers.sum::<usize>() + e.pool.map_or(0, |id| s.segments() * map(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Geometry;
    use crate::training::rows::{Rows, even};
    use lately_model::ModelConfig;
    use lately_model::training::Stager;

    #[test]
    fn the_paper_s_geometry_is_counted_as_on_the_back_of_an_envelope() {
        let schema = Geometry::Paper.schema().unwrap();
        let model = lately_model::Model::new(ModelConfig::paper(), &schema, 1).unwrap();
        let plan = TrainingPlan::of(&model).unwrap();
        let count = |candidates| {
            let rows = Rows::new(&schema, &even(20, candidates, 100), 1);
            multiply_adds(&plan, &rows.stage(&mut Stager::new(&model, 1)).unwrap()) / 20
        };
        // Of 100 tokens: projections of d to 3d once or shared by 10, attention, output and feed-forward; then the top.
        let (d, w) = (96, plan.inputs);
        let layer = 100 * (2 * 100 * d + d * d + 2 * d * 32);
        let second = 100 * 3 * d * d;
        let top = 2 * w * w + w * 512 + 512 * 256 + 256 * 4 + d * d;
        let first = |shared: usize| 3 * d * (100 * 64 / shared + 32);
        assert_eq!(count(1), 3 * (2 * layer + second + first(1) + top));
        assert_eq!(count(10), 3 * (2 * layer + second + first(10) + top));
    }
}
