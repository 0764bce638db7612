//! Whether the card gives the scores of the CPU in f32.

use std::path::Path;
use std::sync::Arc;

use lately_features::{FeatureBatch, Schema};
use lately_model::{Engine, EngineMemory, Model, ServingPrecision, parity};

use crate::Failure;
use crate::agreement::{Agreement, ERROR, SLACK, TAU};
use crate::cases;
use crate::inputs::{Geometry, Mask, Recipe, shared};
use crate::place::{Loaded, Place, Score};

/// Candidates of a request: around a warp's, a block's and a launch's worth, and what is served.
const SIZES: [usize; 8] = [1, 2, 63, 64, 65, 500, 2_000, 2_049];

type Report = cases::Report<Agreement>;
type Case = cases::Case<Agreement>;
type Outcome = cases::Outcome<Agreement>;

/// Runs all cases, and prints each as it ends; `small` one alone. `golden`: a folder with reference cases.
pub(crate) fn run(place: &Place, golden: Option<&Path>, small: bool) -> Result<Report, Failure> {
    let mut report = Report::new(place.name());
    println!(
        "scores on {} against the CPU in f32 (error at most {ERROR:.0e}, tau at least {TAU}; or {SLACK} times what bf16 loses on \
         the CPU)",
        report.device
    );
    if small {
        let recipe = Recipe { requests: vec![(17, 3), (0, 1), (40, 66)], ..Recipe::one(0, 0, 3) };
        of_geometry(place, Geometry::Default, &[("small".to_owned(), recipe)], &mut report)?;
        return Ok(report);
    }
    match golden {
        Some(folder) => references(place, folder, &mut report)?,
        None => println!("  NO REFERENCE CASES: set LATELY_GOLDEN to the folder that holds them"),
    }
    let sizes: Vec<usize> = SIZES.into_iter().filter(|n| *n <= place.most_candidates()).collect();
    let last = sizes.iter().copied().max().unwrap_or(1);
    for geometry in [Geometry::Default, Geometry::Paper, Geometry::Official] {
        of_geometry(place, geometry, &recipes(geometry, &sizes), &mut report)?;
    }
    for geometry in [Geometry::Default, Geometry::Paper] {
        report.add(poisoned(place, geometry, last, 500)?);
        report.add(company(place, geometry)?);
        report.add(again(place, geometry)?);
    }
    Ok(report)
}

/// Each size, and requests of many lengths together; where tokens can be masked, all masks.
fn recipes(geometry: Geometry, sizes: &[usize]) -> Vec<(String, Recipe)> {
    let size = |n: &usize| (format!("{n} candidates"), Recipe::one(100, *n, *n as u64));
    let mut all: Vec<_> = sizes.iter().map(size).collect();
    let requests = vec![(0, 3), (1, 1), (15, 2), (16, 2), (17, 50), (0, 1), (100, 70)];
    all.push(("mixed histories".to_owned(), Recipe { requests, ..Recipe::one(0, 0, 4) }));
    if geometry == Geometry::Official {
        let masked = |mask: Mask| {
            let requests = vec![(100, 64), (17, 5), (1, 2)];
            (mask.name().to_owned(), Recipe { requests, mask, ..Recipe::one(0, 0, 5) })
        };
        all.extend([Mask::None, Mask::One, Mask::All].map(masked));
    }
    all
}

fn of_geometry(
    place: &Place,
    geometry: Geometry,
    recipes: &[(String, Recipe)],
    report: &mut Report,
) -> Result<(), Failure> {
    let (model, schema) = shared(geometry)?;
    let score = match place.load(&model)? {
        Loaded::Scores(score) => score,
        Loaded::Unsupported(why) => {
            report.add(Case {
                name: geometry.name().to_owned(),
                rows: 0,
                outcome: Outcome::Unsupported(why),
            });
            return Ok(());
        }
    };
    let oracle = Oracle::new(&model);
    for (name, recipe) in recipes {
        let batch = recipe.batch(&schema);
        let expected = oracle.expected(&batch, None)?;
        report.add(compare(format!("{}: {name}", geometry.name()), &score, &batch, &expected));
    }
    Ok(())
}

/// The CPU's engines.
struct Oracle {
    exact: Engine,
    bf16: Engine,
}

/// What a batch's logits should be, and how near to it bf16 comes.
struct Expected {
    logits: Vec<f32>,
    bf16: Agreement,
}

impl Oracle {
    fn new(model: &Arc<Model>) -> Self {
        let of = |precision| Engine::new(Arc::clone(model), precision);
        Self { exact: of(ServingPrecision::F32), bf16: of(ServingPrecision::Bf16) }
    }

    /// `logits`: where something better is known than what the CPU gives in f32.
    fn expected(&self, batch: &FeatureBatch, logits: Option<Vec<f32>>) -> Result<Expected, Failure> {
        let score = |engine: &Engine| engine.score(batch, &mut EngineMemory::default());
        let logits = logits.map_or_else(|| score(&self.exact), Ok)?;
        let bf16 = Agreement::of(batch, &score(&self.bf16)?, &logits);
        Ok(Expected { logits, bf16 })
    }
}

fn compare(name: String, score: &Score, batch: &FeatureBatch, expected: &Expected) -> Case {
    let outcome = match score(batch) {
        Ok(got) => {
            let agreement = Agreement::of(batch, &got, &expected.logits);
            Outcome::of(agreement.holds(&expected.bf16), agreement)
        }
        Err(error) => Outcome::Failed(error.to_string()),
    };
    Case { name, rows: batch.rows(), outcome }
}

/// The reference program's outputs, which the file has in f32.
fn references(place: &Place, folder: &Path, report: &mut Report) -> Result<(), Failure> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<_> = entries.map(|e| Ok(e?.path())).collect::<Result<_, std::io::Error>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    for file in files {
        let name = format!("reference: {}", file.file_stem().unwrap_or_default().to_string_lossy());
        let case = parity::case(&file)?;
        let model = Arc::new(case.model);
        report.add(match place.load(&model)? {
            Loaded::Scores(score) => {
                let expected = Oracle::new(&model).expected(&case.batch, Some(case.logits))?;
                compare(name, &score, &case.batch, &expected)
            }
            Loaded::Unsupported(why) => Case { name, rows: 0, outcome: Outcome::Unsupported(why) },
        });
    }
    Ok(())
}

/// Fills the memory of the top's layers on the card with numbers that are none, then scores what has nothing of them.
fn poisoned(place: &Place, geometry: Geometry, filling: usize, rows: usize) -> Result<Case, Failure> {
    let (model, schema): (Arc<Model>, Schema) = (Arc::new(geometry.poisonous()?), geometry.schema()?);
    let name = format!("{}: after a call of NaN", geometry.name());
    let score = match place.load(&model)? {
        Loaded::Scores(score) => score,
        Loaded::Unsupported(why) => return Ok(Case { name, rows: 0, outcome: Outcome::Unsupported(why) }),
    };
    // An error, or numbers: the ReLU of the CPU, where it stands in, makes 0 of what is none. Logits that are none must not be given out.
    if score(&Recipe::one(100, filling, 6).batch(&schema)).is_ok_and(|x| !x.iter().all(|x| x.is_finite())) {
        let outcome = Outcome::Failed("logits that are no numbers were given out".to_owned());
        return Ok(Case { name, rows: filling, outcome });
    }
    let batch = Recipe { topics: false, ..Recipe::one(100, rows, 7) }.batch(&schema);
    let expected = Oracle::new(&model).expected(&batch, None)?;
    Ok(compare(name, &score, &batch, &expected))
}

/// A row has the same bits in any company.
fn company(place: &Place, geometry: Geometry) -> Result<Case, Failure> {
    let (model, schema) = shared(geometry)?;
    let name = format!("{}: the same bits in company", geometry.name());
    let score = match place.load(&model)? {
        Loaded::Scores(score) => score,
        Loaded::Unsupported(why) => return Ok(Case { name, rows: 0, outcome: Outcome::Unsupported(why) }),
    };
    let alone = Recipe::one(100, 70, 8);
    let beside = Recipe { requests: vec![(100, 70), (3, 5), (60, 200)], ..alone.clone() };
    let (alone, beside) = (alone.batch(&schema), beside.batch(&schema));
    let want = score(&alone)?;
    let got = score(&beside)?;
    let same = got.iter().zip(&want).filter(|(a, b)| a.to_bits() == b.to_bits()).count();
    let agreement = Agreement::of(&alone, &got[..want.len().min(got.len())], &want);
    let outcome = Outcome::of(same == want.len(), agreement);
    Ok(Case { name, rows: alone.rows(), outcome })
}

/// A row has the same bits whether its item is on the card already or comes with the call.
fn again(place: &Place, geometry: Geometry) -> Result<Case, Failure> {
    let (model, schema) = shared(geometry)?;
    let name = format!("{}: the same bits again", geometry.name());
    let score = match place.load(&model)? {
        Loaded::Scores(score) => score,
        Loaded::Unsupported(why) => return Ok(Case { name, rows: 0, outcome: Outcome::Unsupported(why) }),
    };
    let batch = Recipe { requests: vec![(100, 70), (60, 200)], ..Recipe::one(0, 0, 9) }.batch(&schema);
    let want = score(&batch)?;
    let got = score(&batch)?;
    let same = got.iter().zip(&want).filter(|(a, b)| a.to_bits() == b.to_bits()).count();
    let agreement = Agreement::of(&batch, &got, &want);
    let outcome = Outcome::of(same == want.len(), agreement);
    Ok(Case { name, rows: batch.rows(), outcome })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scores_in_bf16_passes_and_poison_is_noticed() {
        let report = run(&Place::StandIn, None, true).unwrap();
        report.verdict().unwrap();
        let case = poisoned(&Place::StandIn, Geometry::Default, 5, 5).unwrap();
        assert!(matches!(case.outcome, Outcome::Agrees(_)), "{case:?}");
        for same in [company, again] {
            let case = same(&Place::StandIn, Geometry::Default).unwrap();
            assert!(matches!(case.outcome, Outcome::Agrees(a) if a.error == 0.0), "{case:?}");
        }
    }

    #[test]
    fn a_card_that_is_wrong_fails_the_check() {
        let (model, schema) = shared(Geometry::Default).unwrap();
        let batch = Recipe::one(5, 3, 1).batch(&schema);
        let expected = Oracle::new(&model).expected(&batch, None).unwrap();
        let mut wrong = expected.logits.clone();
        wrong.rotate_left(1);
        let differs: Score = Box::new(move |_| Ok(wrong.clone()));
        let fails: Score = Box::new(|_| Err("the launch failed".into()));
        let cases = vec![
            compare("wrong".to_owned(), &differs, &batch, &expected),
            compare("failed".to_owned(), &fails, &batch, &expected),
        ];
        let shown = format!("{} {}", cases[0], cases[1]);
        assert!(shown.contains("DIFFERS") && shown.contains("the launch failed"), "{shown}");
        let report = Report { device: "none".to_owned(), cases };
        assert_eq!(report.verdict().unwrap_err().to_string(), "2 of 2 cases do not agree");
        let nothing = Report::new("none".to_owned());
        assert!(nothing.verdict().is_err(), "of nothing nothing is known");
    }
}
