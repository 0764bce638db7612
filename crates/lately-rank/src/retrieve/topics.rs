//! Topics of items and of users, where both are declared alike.

use lately_features::batch::Layout;
use lately_features::{Features, Schema};

/// The slots of the item's topics and of the user's followed topics, where both are declared alike.
#[derive(Debug, Clone, Default)]
pub(crate) struct Topics {
    item: Option<(usize, usize)>,
    followed: Option<(usize, usize)>,
}

impl Topics {
    /// Followed topics meet item topics by hash bucket, so both features must declare the same number of `buckets`;
    /// otherwise nothing is retrieved by followed topics, and a warning says so.
    pub(crate) fn new(schema: &Schema) -> Self {
        let find = |kinds, name: &Option<String>| {
            let name = name.as_ref()?;
            let slots = Layout::of(kinds).categorical.into_iter().find(|c| c.name == *name)?;
            Some(((slots.start, slots.slots), slots.buckets))
        };
        let item = find(&schema.item_features, &schema.topic_feature);
        let followed = find(&schema.user_features, &schema.followed_feature);
        if let (Some((_, a)), Some((_, b))) = (item, followed)
            && a != b
        {
            tracing::warn!(
                topic_buckets = a,
                followed_buckets = b,
                "topic_feature and followed_feature declare different buckets: followed topics are not retrieved; \
                 declare the same"
            );
            return Self { item: item.map(|i| i.0), followed: None };
        }
        Self { item: item.map(|i| i.0), followed: followed.map(|f| f.0) }
    }

    /// Topics of an item, as buckets.
    pub(crate) fn of_item<'a>(&self, item: &'a Features) -> impl Iterator<Item = u32> + use<'a> {
        buckets(item, self.item)
    }

    /// Topics that a user follows, as buckets.
    pub(crate) fn followed<'a>(&self, user: &'a Features) -> impl Iterator<Item = u32> + use<'a> {
        buckets(user, self.followed)
    }
}

fn buckets(features: &Features, slots: Option<(usize, usize)>) -> impl Iterator<Item = u32> + use<'_> {
    let (start, len) = slots.unwrap_or((0, 0));
    features.categorical[start..start + len].iter().copied().filter(|b| *b != 0)
}
