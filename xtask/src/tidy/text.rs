//! What must not stand in any file: trailing white space, unexplained TODOs, paths of one machine, big blobs.

use crate::error::TaskError;
use crate::workspace;

/// A file larger than this does not belong into the history, bytes.
const MAX_FILE_BYTES: usize = 500_000;

/// Endings of files that people write; white space is checked in these alone.
const WRITTEN: &[&str] =
    &["rs", "toml", "md", "sh", "yml", "yaml", "json", "html", "css", "js", "ts", "svelte", "py", "sql"];

/// Starts of absolute paths that exist on one machine only. In two parts, so that this file does not hold them.
const MACHINE: &[(&str, &str)] = &[("/ho", "me/"), ("/ro", "ot/"), ("/wo", "rk/"), ("/Us", "ers/")];

/// Marks of unfinished work; each needs a colon and an explanation.
const MARKS: &[(&str, &str)] = &[("TO", "DO"), ("FIX", "ME")];

/// What is wrong in the files, each as `path:line: words`.
pub(super) fn check(files: &[String]) -> Result<Vec<String>, TaskError> {
    let mut problems = Vec::new();
    for path in files {
        let bytes = workspace::read(&workspace::root().join(path))?;
        problems.extend(file(path, &bytes));
    }
    Ok(problems)
}

fn file(path: &str, bytes: &[u8]) -> Vec<String> {
    let mut problems = Vec::new();
    if bytes.len() > MAX_FILE_BYTES {
        problems.push(format!("{path}: {} bytes: more than {MAX_FILE_BYTES}", bytes.len()));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return problems }; // a picture, an archive
    let name = path.rsplit('/').next().unwrap_or(path);
    let written = name.rsplit_once('.').is_none_or(|(_, ending)| WRITTEN.contains(&ending));
    for (i, line) in text.split('\n').enumerate() {
        let mut add = |what: &str| problems.push(format!("{path}:{}: {what}", i + 1));
        if written && line.ends_with([' ', '\t', '\r']) {
            add("white space at the end of the line");
        }
        if holds_machine_path(line) {
            add("a path of one machine");
        }
        if written && !mark_is_explained(line) {
            add("a mark of unfinished work without an explanation: write what is missing after a colon");
        }
    }
    if written && !text.is_empty() && !text.ends_with('\n') {
        problems.push(format!("{path}: no line end at the end of the file"));
    }
    problems
}

/// Whether an absolute path of a machine begins in the line: not the middle of a longer path or address.
fn holds_machine_path(line: &str) -> bool {
    MACHINE.iter().any(|(a, b)| {
        let needle = format!("{a}{b}");
        line.match_indices(&needle).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '/' | '-' | '_' | '}' | '~'))
        })
    })
}

/// True where there is no mark, or where each is followed by a colon (a name in parentheses may come first) and at
/// least three words.
fn mark_is_explained(line: &str) -> bool {
    MARKS.iter().all(|(a, b)| {
        let mark = format!("{a}{b}");
        line.match_indices(&mark).all(|(at, _)| {
            let (before, after) = (line[..at].chars().next_back(), &line[at + mark.len()..]);
            let word = |c: char| c.is_alphanumeric() || c == '_';
            if before.is_some_and(word) || after.chars().next().is_some_and(|c| word(c) || c == 's') {
                return true; // part of a longer word
            }
            let after = match after.strip_prefix('(') {
                Some(rest) => rest.split_once(')').map_or("", |(_, rest)| rest),
                None => after,
            };
            after.strip_prefix(':').is_some_and(|why| why.split_whitespace().count() >= 3)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(path: &str, text: &str) -> String {
        file(path, text.as_bytes()).into_iter().next().unwrap_or_default()
    }

    #[test]
    fn white_space_and_line_ends() {
        assert_eq!(first("a.rs", "fn f() {}\n"), "");
        assert!(first("a.rs", "x\nfn f() {} \n").starts_with("a.rs:2: white space"));
        assert!(first("LICENSE", "x\r\n").contains("white space"));
        assert!(first("a.md", "x").contains("no line end"));
        assert_eq!(first("data.csv", "a,b \r\n1,2"), "", "data stays as it came");
    }

    #[test]
    fn paths_of_one_machine() {
        for (a, b) in MACHINE {
            assert!(first("a.rs", &format!("open(\"{a}{b}x\")\n")).contains("one machine"), "{a}{b}");
            assert!(first("data.csv", &format!("{a}{b}x\n")).contains("one machine"), "{a}{b}");
            assert_eq!(first("a.rs", &format!("https://x.org{a}{b}\n")), "");
            assert_eq!(first("a.rs", &format!("..{a}{b}\n")), "");
        }
    }

    #[test]
    fn marks_need_an_explanation() {
        let mark = format!("{}{}", MARKS[0].0, MARKS[0].1);
        for wrong in ["", ":", " later", "(me)", ": later maybe"] {
            assert!(
                first("a.rs", &format!("// {mark}{wrong}\n")).contains("without an explanation"),
                "{wrong}"
            );
        }
        for right in [": needs a second engine", "(me): needs a second engine"] {
            assert_eq!(first("a.rs", &format!("// {mark}{right}\n")), "");
        }
        assert_eq!(first("a.rs", &format!("let {mark}_LIST = 1;\n")), "");
    }

    #[test]
    fn big_and_binary_files() {
        assert!(first("a.bin", &"x".repeat(MAX_FILE_BYTES + 1)).contains("more than"));
        assert_eq!(file("a.png", &[0xff, 0xfe, b' ', b'\n']), [] as [String; 0]);
    }
}
