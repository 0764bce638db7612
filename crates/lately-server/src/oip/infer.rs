//! An inference: tensors to a ranking, and the ranking to tensors in the order of the candidates.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use lately_rank::{RankRequest, RankResponse};

use super::{MODEL, Tensor, inputs, outputs, unknown_version};
use crate::admission::Permit;
use crate::app::App;
use crate::ask::{self, bad};
use crate::error::ApiError;

/// What a client asks for, in either form.
#[derive(Debug, Default)]
pub(crate) struct Infer {
    /// The version that must answer.
    pub(crate) version: Option<String>,
    pub(crate) parameters: Parameters,
    pub(crate) inputs: Vec<Input>,
    /// Names of outputs; none: all.
    pub(crate) outputs: Vec<String>,
    /// How long the client waits.
    pub(crate) waits: Option<Duration>,
}

/// Parameters by name.
pub(crate) type Parameters = BTreeMap<String, Parameter>;

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Parameter {
    Bool(bool),
    Number(u64),
    Text(String),
    /// A number that no parameter takes.
    Other,
}

/// An input tensor; all are texts.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) datatype: String,
    pub(crate) shape: Vec<i64>,
    pub(crate) data: Vec<String>,
}

/// An output tensor.
#[derive(Debug, PartialEq)]
pub(crate) struct Output {
    pub(crate) tensor: Tensor,
    pub(crate) data: OutputData,
}

/// Its numbers, row after row.
#[derive(Debug, PartialEq)]
pub(crate) enum OutputData {
    Fp32(Vec<f32>),
    Int32(Vec<i32>),
}

/// What is answered beside the tensors.
#[derive(Debug)]
pub(crate) struct Inferred {
    /// Version of the model; `None`: no model ranked.
    pub(crate) version: Option<String>,
    pub(crate) parameters: Parameters,
    pub(crate) outputs: Vec<Output>,
}

/// Ranks, and gives each candidate its score, probabilities and place in the order in which they were sent.
pub(crate) async fn infer(app: &App, permit: Permit, infer: Infer) -> Result<Inferred, ApiError> {
    super::check_name(app, MODEL, infer.version.as_deref())?;
    for name in &infer.outputs {
        if !outputs(-1, 0).iter().any(|output| output.name == name) {
            return Err(bad(format!("no output `{name}`: ask for score, probabilities, position")));
        }
    }
    let mut ask = ranking(infer.inputs, &infer.parameters)?;
    ask.deadline = app.deadlines.of(ask.deadline, infer.waits);
    let candidates = ask.candidates.clone();
    let response = app.rank(permit, ask).await?;
    let version = response.model.as_ref().map(|model| model.version.clone());
    if infer.version.is_some() && version.is_some() && infer.version != version {
        return Err(unknown_version()); // swapped out meanwhile
    }
    let places: HashMap<&str, usize> =
        response.items.iter().enumerate().map(|(place, item)| (item.item.as_str(), place)).collect();
    // Of equal candidates the first one is ranked, the others are dropped.
    let mut taken = vec![false; response.items.len()];
    let places = candidates.iter().map(|item| {
        let place = *places.get(item.as_str())?;
        (!std::mem::replace(&mut taken[place], true)).then_some(place)
    });
    let outputs = tensors(&response, &places.collect::<Vec<_>>());
    let wanted =
        |output: &Output| infer.outputs.is_empty() || infer.outputs.iter().any(|n| n == output.tensor.name);
    Ok(Inferred {
        version,
        outputs: outputs.into_iter().filter(wanted).collect(),
        parameters: parameters(response),
    })
}

/// The ranking that tensors and parameters ask for.
fn ranking(tensors: Vec<Input>, parameters: &Parameters) -> Result<RankRequest, ApiError> {
    let (mut user, mut candidates, mut surface) = (None, None, None);
    for input in tensors {
        check(&input)?;
        let slot = match input.name.as_str() {
            "user" => &mut user,
            "candidates" => &mut candidates,
            _ => &mut surface,
        };
        if slot.replace(input.data).is_some() {
            return Err(bad(format!("input `{}` stands twice: send it once", input.name)));
        }
    }
    let one = |input: Option<Vec<String>>| input.and_then(|texts| texts.into_iter().next());
    let missing = |name| bad(format!("input `{name}` is missing"));
    let user = one(user).ok_or_else(|| missing("user"))?;
    let candidates = candidates.ok_or_else(|| missing("candidates"))?;
    let mut ask = RankRequest::new(ask::user(&user)?, ask::items("candidates", candidates)?);
    ask.surface = one(surface);
    for (name, value) in parameters {
        match (name.as_str(), value) {
            ("deadline_ms", Parameter::Number(ms)) => ask.deadline = Some(Duration::from_millis(*ms)),
            ("request", Parameter::Text(text)) => ask.request = Some(ask::request(text)?),
            // Clients of Triton ask for it by default; they read JSON as well.
            ("binary_data_output", Parameter::Bool(_)) => {}
            _ => {
                let message =
                    format!("parameter `{name}`: there are deadline_ms (a number) and request (a text)");
                return Err(bad(message));
            }
        }
    }
    Ok(ask)
}

/// Name, datatype and shape against the metadata, and the data against the shape.
fn check(input: &Input) -> Result<(), ApiError> {
    let Input { name, datatype, shape, data } = input;
    let all = inputs();
    let Some(want) = all.iter().find(|tensor| tensor.name == name) else {
        return Err(bad(format!("no input `{name}`: there are user, candidates and, if you like, surface")));
    };
    if datatype != want.datatype {
        return Err(bad(format!("input `{name}` is of type {datatype}: send {}", want.datatype)));
    }
    let fits = shape.len() == 1 && shape[0] >= 0 && (want.shape[0] == -1 || want.shape == *shape);
    if !fits {
        return Err(bad(format!(
            "input `{name}` has the shape {shape:?}: send {:?} (-1: any size)",
            want.shape
        )));
    }
    if usize::try_from(shape[0]) != Ok(data.len()) {
        return Err(bad(format!("input `{name}` has the shape {shape:?} and {} values", data.len())));
    }
    Ok(())
}

/// `places`: each candidate's place among the ranked items; `None`: it was dropped, and all its numbers are 0.
fn tensors(response: &RankResponse, places: &[Option<usize>]) -> [Output; 3] {
    let heads = if response.model.is_some() { response.heads.len() } else { 0 };
    let (mut scores, mut positions) = (Vec::with_capacity(places.len()), Vec::with_capacity(places.len()));
    let mut probabilities = Vec::with_capacity(places.len() * heads);
    for place in places {
        match place.map(|place| &response.items[place]) {
            Some(item) => {
                scores.push(item.score);
                positions.push(i32::from(item.position));
                probabilities.extend(&item.heads);
            }
            None => {
                scores.push(0.0);
                positions.push(-1);
                probabilities.resize(probabilities.len() + heads, 0.0);
            }
        }
    }
    let [score, probability, position] = outputs(places.len() as i64, heads);
    [
        Output { tensor: score, data: OutputData::Fp32(scores) },
        Output { tensor: probability, data: OutputData::Fp32(probabilities) },
        Output { tensor: position, data: OutputData::Int32(positions) },
    ]
}

fn parameters(response: RankResponse) -> Parameters {
    let degraded: Vec<&str> = response.degraded.iter().map(|rung| rung.name()).collect();
    let mut parameters = Parameters::from([
        ("request".to_owned(), Parameter::Text(response.request.into())),
        ("watermark".to_owned(), Parameter::Number(response.watermark)),
        ("degraded".to_owned(), Parameter::Text(degraded.join(","))),
        ("heads".to_owned(), Parameter::Text(response.heads.join(","))),
    ]);
    if let Some(model) = response.model {
        parameters.insert("generation".to_owned(), Parameter::Number(model.generation));
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, texts: &[&str]) -> Input {
        Input {
            name: name.to_owned(),
            datatype: "BYTES".to_owned(),
            shape: vec![texts.len() as i64],
            data: texts.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    fn refused(inputs: Vec<Input>, parameters: &[(&str, Parameter)]) -> String {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let error = ranking(inputs, &parameters).unwrap_err();
        assert_eq!(error.code, "bad_request");
        error.message
    }

    #[test]
    fn tensors_become_a_ranking_or_say_why_not() {
        let good = || vec![input("user", &["u"]), input("candidates", &["a", "b"])];
        let with = |change: fn(&mut Input)| {
            let mut inputs = good();
            change(&mut inputs[1]);
            inputs
        };
        let parameters = Parameters::from([("deadline_ms".to_owned(), Parameter::Number(9))]);
        let ask = ranking(good(), &parameters).unwrap();
        assert_eq!((ask.candidates.len(), ask.deadline), (2, Some(Duration::from_millis(9))));
        let cases = [
            (refused(vec![input("user", &["u"])], &[]), "`candidates` is missing"),
            (refused(vec![input("candidates", &["u"])], &[]), "`user` is missing"),
            (refused(with(|i| i.name = "items".to_owned()), &[]), "no input `items`"),
            (refused(with(|i| i.datatype = "FP32".to_owned()), &[]), "of type FP32: send BYTES"),
            (refused(with(|i| i.shape = vec![1, 2]), &[]), "the shape [1, 2]: send [-1]"),
            (refused(with(|i| i.shape = vec![-2]), &[]), "the shape [-2]"),
            (refused(with(|i| i.shape = vec![3]), &[]), "the shape [3] and 2 values"),
            (refused(with(|i| i.name = "user".to_owned()), &[]), "`user` has the shape [2]: send [1]"),
            (refused(good().into_iter().chain(good()).collect(), &[]), "`user` stands twice"),
            (refused(with(|i| i.data[1].clear()), &[]), "candidates[1]: an id is empty"),
            (refused(good(), &[("speed", Parameter::Number(1))]), "parameter `speed`"),
            (refused(good(), &[("deadline_ms", Parameter::Other)]), "parameter `deadline_ms`"),
        ];
        for (message, words) in cases {
            assert!(message.contains(words), "`{message}` has no `{words}`");
        }
    }
}
