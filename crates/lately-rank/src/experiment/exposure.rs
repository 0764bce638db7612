//! What is logged of experiments: who was in which variant where that could make a difference.

use crate::request::Variant;

/// An experiment that a request was in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// The experiment.
    pub experiment: String,
    /// The variant.
    pub variant: String,
    /// Whether it was forced on the request: then it is not logged.
    pub forced: bool,
}

/// Text of `Impression::variant`: a canary's arm, and `experiment=variant` for each exposure, joined by `;`.
pub(crate) fn impression_variant(arm: Option<Variant>, exposures: &[Exposure]) -> Option<String> {
    let arm = arm.map(|a| a.name().to_owned());
    let counted = exposures.iter().filter(|e| !e.forced);
    let parts: Vec<String> =
        arm.into_iter().chain(counted.map(|e| format!("{}={}", e.experiment, e.variant))).collect();
    (!parts.is_empty()).then(|| parts.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_and_exposures_stand_side_by_side_and_what_was_forced_is_not_logged() {
        let exposure = |experiment: &str, forced| Exposure {
            experiment: experiment.to_owned(),
            variant: "on".to_owned(),
            forced,
        };
        let exposures = [exposure("a", false), exposure("b", true), exposure("c", false)];
        let text = impression_variant(Some(Variant::Champion), &exposures).unwrap();
        assert_eq!(text, "champion;a=on;c=on");
        assert_eq!(Variant::named(Some(&text)), Some(Variant::Champion));
        assert_eq!(Variant::named(Some("a=on")), None);
        assert_eq!(impression_variant(None, &exposures[1..2]), None);
    }
}
