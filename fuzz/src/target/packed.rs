//! The packed form of a ranking: [`lately_server::packed`], requests and answers.

use lately_features::{IdError, ItemId, RequestId, UserId};
use lately_server::packed::{Answer, Ranked, Request};

use super::{Target, Verdict};

pub(super) const REQUEST: Target = Target {
    name: "packed",
    about: "packed requests of POST /v1/rank: packed::Request::decode",
    seeds: requests,
    words: &[b"LYRQ", b"LYRQ\x01\x07", b"\xff\xff", &[1; 8], "ü".as_bytes(), b"home"],
    check: |input| match Request::decode(input) {
        Ok(ask) => same(input, &ask.encode().unwrap_or_else(|e| panic!("a request cannot be packed: {e}"))),
        Err(e) => Verdict::refused(e),
    },
};

pub(super) const ANSWER: Target = Target {
    name: "answer",
    about: "packed answers, as a client reads them: packed::Answer::decode",
    seeds: answers,
    words: &[b"LYRA", b"LYRA\x01", b"\xff\xff", &[0, 0, 0xc0, 0x7f], &[0; 8], b"no_model"],
    check: |input| match Answer::decode(input) {
        Ok(answer) => {
            assert!(answer.items.len() <= answer.candidates.into(), "a ranking is of candidates");
            let finite = answer.items.iter().all(|i| {
                i.probabilities.len() == answer.heads.len()
                    && i.probabilities.iter().chain([&i.score]).all(|x| x.is_finite())
            });
            assert!(finite, "as many finite probabilities as heads");
            same(input, &answer.encode().unwrap_or_else(|e| panic!("an answer cannot be packed: {e}")))
        }
        Err(e) => Verdict::refused(e),
    },
};

/// There is one way to write a form, so what was accepted must be written as it was read.
fn same(input: &[u8], written: &[u8]) -> Verdict {
    assert_eq!(input, written, "written otherwise than it was read");
    Verdict::Accepted
}

fn requests() -> Vec<Vec<u8>> {
    let of = |n: usize| -> Result<Request, IdError> {
        let items = (0..n).map(|i| ItemId::new(format!("item ü{i}"))).collect::<Result<_, _>>()?;
        Ok(Request {
            surface: Some("home".to_owned()),
            request: Some(RequestId::new("r1")?),
            limit: 3,
            deadline_ms: 50,
            hidden: true,
            ..Request::new(UserId::new("u-1")?, items)
        })
    };
    let request = |n| of(n).unwrap_or_else(|e| panic!("seed requests: {e}"));
    let plain = Request { surface: None, request: None, ..request(1) };
    [request(0), request(5), plain].iter().map(|r| packed(r.encode())).collect()
}

fn answers() -> Vec<Vec<u8>> {
    let item = |candidate: u16| Ranked {
        candidate,
        score: f32::from(candidate) - 1.5,
        probabilities: vec![0.5, 0.25],
    };
    let whole = Answer {
        request: "r1".to_owned(),
        model: Some(("v1".to_owned(), 3)),
        schema_hash: "abc".to_owned(),
        embedding_version: "e1".to_owned(),
        watermark: 7,
        degraded: vec!["no_sequence".to_owned()],
        heads: vec!["click".to_owned(), "save".to_owned()],
        candidates: 9,
        items: [4, 0, 8].map(item).into(),
    };
    let poor = Answer { model: None, heads: Vec::new(), items: Vec::new(), ..whole.clone() };
    [whole, poor].iter().map(|a| packed(a.encode())).collect()
}

fn packed(bytes: Result<Vec<u8>, lately_server::packed::PackedError>) -> Vec<u8> {
    bytes.unwrap_or_else(|e| panic!("seeds are packed: {e}"))
}
