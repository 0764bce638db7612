//! Tests that need data print `skipped: ...` where it is absent and pass. This names them, so that nobody takes
//! such a run for a complete one.

use crate::error::TaskError;
use crate::workspace;

/// Prints the `skipped:` lines of the last nextest run of a profile.
pub(crate) fn report(profile: &str) -> Result<(), TaskError> {
    // Nextest's store is `target/nextest` beside the workspace, wherever CARGO_TARGET_DIR is.
    let target = workspace::root().join("target/nextest").join(profile).join("junit.xml");
    let text = String::from_utf8_lossy(&workspace::read(&target)?).into_owned();
    let lines = find(&text);
    if lines.is_empty() {
        println!("no test skipped anything");
    }
    for (test, reason) in &lines {
        println!("PARTLY SKIPPED {test}: {reason}");
    }
    Ok(())
}

/// (test, reason) of every line of output that begins with `skipped:`.
fn find(junit: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for case in junit.split("<testcase").skip(1) {
        let name = attribute(case, "name").unwrap_or("?");
        let crate_name = attribute(case, "classname").unwrap_or("?");
        for line in case.lines() {
            // The first line of the output follows its opening tag.
            let line = line.rsplit_once("<system-out>").map_or(line, |(_, rest)| rest);
            let line = line.rsplit_once("<system-err>").map_or(line, |(_, rest)| rest);
            if let Some(reason) = line.trim_start().strip_prefix("skipped:") {
                let reason = reason.split("</system-").next().unwrap_or(reason);
                found.push((format!("{crate_name} {name}"), reason.trim().to_owned()));
            }
        }
    }
    found
}

fn attribute<'a>(case: &'a str, name: &str) -> Option<&'a str> {
    let start = case.find(&format!(" {name}=\""))? + name.len() + 3;
    case[start..].split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_lines_are_found_with_their_test() {
        let junit = r#"<testsuite name="m">
            <testcase name="golden::paper" classname="lately-model" time="0.1">
              <system-out>
running 1 test
skipped: no golden files: set LATELY_GOLDEN
test golden::paper ... ok
</system-out><system-err>skipped: and this</system-err>
            </testcase>
            <testcase name="b" classname="lately-model"><system-out>nothing skipped: here</system-out></testcase>"#;
        let test = "lately-model golden::paper".to_owned();
        assert_eq!(
            find(junit),
            [(test.clone(), "no golden files: set LATELY_GOLDEN".to_owned()), (test, "and this".to_owned())]
        );
    }
}
