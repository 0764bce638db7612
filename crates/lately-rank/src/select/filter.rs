//! What a user blocked: items that share a value of a categorical feature with a list of the user's.

use lately_features::batch::{CategoricalSlots, Layout};
use lately_features::schema::FeatureKind;
use lately_features::{Features, Schema};

use super::config::SelectConfig;
use crate::error::RankConfigError;

/// Where the features stand that a block compares: (the user's slots, the item's slots).
type Pair = (std::ops::Range<usize>, std::ops::Range<usize>);

/// The blocks of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Blocks {
    pairs: Vec<Pair>,
}

impl Blocks {
    /// Values meet by hash bucket, so a block whose features declare different numbers of `buckets` is refused.
    pub(crate) fn new(config: &SelectConfig, schema: &Schema) -> Result<Self, RankConfigError> {
        let pair = |block: &super::config::BlockRule| {
            let user = slots(&schema.user_features, &block.user)?;
            let item = slots(&schema.item_features, &block.item)?;
            if user.buckets != item.buckets {
                let (user, item) = (block.user.clone(), block.item.clone());
                return Err(RankConfigError::BlockBuckets { user, item });
            }
            let range = |s: &CategoricalSlots| s.start..s.start + s.slots;
            Ok((range(&user), range(&item)))
        };
        Ok(Self { pairs: config.blocked.iter().map(pair).collect::<Result<_, _>>()? })
    }

    /// Whether the user blocked the item. What is not known blocks nothing.
    pub(crate) fn block(&self, user: Option<&Features>, item: Option<&Features>) -> bool {
        let (Some(user), Some(item)) = (user, item) else { return false };
        let shared = |(of_user, of_item): &Pair| {
            let values = &item.categorical[of_item.clone()];
            user.categorical[of_user.clone()].iter().any(|b| *b != 0 && values.contains(b))
        };
        self.pairs.iter().any(shared)
    }
}

fn slots(kinds: &[FeatureKind], name: &str) -> Result<CategoricalSlots, RankConfigError> {
    let all = Layout::of(kinds).categorical;
    let names = all.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = all.into_iter().find(|c| c.name == name);
    found.ok_or_else(|| RankConfigError::UnknownFeature { name: name.to_owned(), features: names })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranker::tests::{item_features, schema};
    use crate::select::BlockRule;
    use lately_features::FeatureValue;
    use lately_features::event::FeatureValues;

    fn config(user: &str, item: &str) -> SelectConfig {
        let blocked = vec![BlockRule { user: user.into(), item: item.into() }];
        SelectConfig { blocked, ..SelectConfig::default() }
    }

    #[test]
    fn items_with_a_value_that_the_user_blocked_are_blocked() {
        let blocks = Blocks::new(&config("follows", "topic"), &schema()).unwrap();
        let values = FeatureValues::from([("follows".into(), FeatureValue::Text("t1".into()))]);
        let user = Features::encode(&schema().user_features, &values).unwrap();
        let nobody = Features::encode(&schema().user_features, &FeatureValues::new()).unwrap();
        let (one, two) = (item_features("t1", [1.0, 0.0]), item_features("t2", [1.0, 0.0]));
        assert!(blocks.block(Some(&user), Some(&one)) && !blocks.block(Some(&user), Some(&two)));
        assert!(!blocks.block(Some(&nobody), Some(&one)) && !blocks.block(None, Some(&one)));
        assert!(!Blocks::default().block(Some(&user), Some(&one)));
    }

    #[test]
    fn a_block_names_categorical_features() {
        let refused = Blocks::new(&config("blocked", "topic"), &schema()).unwrap_err().to_string();
        assert!(refused.contains("`blocked`: the schema's categorical ones are follows"), "{refused}");
    }
}
